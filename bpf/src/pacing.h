/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pacing arithmetic: a virtual clock that says when the line of one pod
 * is free again. No helpers, no maps: the same text is compiled for the host
 * and property-tested there (tests/pacing.rs).
 */
#ifndef SLUICE_PACING_H
#define SLUICE_PACING_H

#include "contract.h"

struct sluice_step {
	__u64 departure_ns;	/* when this packet may leave */
	__u64 next_ns;		/* the clock after it */
	__u32 admitted;
	__u32 pad;
};

/* Nanoseconds that a frame of wire_len bytes takes at this limit. */
static inline __attribute__((always_inline)) __u64
sluice_cost_ns(const struct sluice_limit *limit, __u32 wire_len)
{
	return (limit->ns_per_byte * wire_len) >> SLUICE_NS_PER_BYTE_SHIFT;
}

/*
 * An idle clock is pulled up to now - burst_ns: that is all the credit there
 * is, however long the pod was idle. A refused packet leaves the clock alone.
 */
static inline __attribute__((always_inline)) struct sluice_step
sluice_pace(__u64 clock_ns, __u64 now_ns, __u64 cost_ns,
	    const struct sluice_limit *limit)
{
	__u64 floor_ns = now_ns > limit->burst_ns ? now_ns - limit->burst_ns : 0;
	struct sluice_step step = { .next_ns = clock_ns };

	step.departure_ns = clock_ns > floor_ns ? clock_ns : floor_ns;
	step.admitted = step.departure_ns <= now_ns + limit->horizon_ns;
	if (step.admitted)
		step.next_ns = step.departure_ns + cost_ns;
	return step;
}

/*
 * The later of our departure and the sender's own (TCP pacing, SO_TXTIME).
 * A stamp beyond the horizon is not a departure time (another clock, or a pod
 * that wants to be dropped by a later fq): it counts as now.
 */
static inline __attribute__((always_inline)) __u64
sluice_stamp(__u64 departure_ns, __u64 own_ns, __u64 now_ns,
	     const struct sluice_limit *limit)
{
	if (own_ns > now_ns + limit->horizon_ns)
		return departure_ns;
	return own_ns > departure_ns ? own_ns : departure_ns;
}

#endif
