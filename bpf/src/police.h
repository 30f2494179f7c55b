/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What all programs share: the proof that a packet has passed a shaper, the one
 * step of a clock, counting, and policing. No decision by flow.
 */
#ifndef SLUICE_POLICE_H
#define SLUICE_POLICE_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "pacing.h"

/*
 * Set for each load: what packets that were shaped on their way into a pod carry
 * in tc_index is this plus the pod's slot. Never 0, and no more than 16 bits.
 */
const volatile __u32 proof_base = 1;

static __always_inline __u32 proof_of(__u32 slot)
{
	return proof_base + slot;
}

#define CLOCK_TRIES 4

/*
 * The one atomic step of each packet; gives when the line was free for it. Who
 * loses CLOCK_TRIES races knows that another CPU has just moved the clock, so
 * it is not idle and adding is right: the sum stays exact.
 */
static __always_inline __u64 charge(struct sluice_clock *clock, __u64 now_ns,
				    __u64 cost_ns, const struct sluice_limit *limit)
{
#pragma unroll
	for (int i = 0; i < CLOCK_TRIES; i++) {
		__u64 seen_ns = *(volatile __u64 *)&clock->next_ns;
		__u64 line_ns = sluice_line_ns(seen_ns, now_ns, limit);

		if (__sync_val_compare_and_swap(&clock->next_ns, seen_ns,
						line_ns + cost_ns) == seen_ns)
			return line_ns;
	}
	return __sync_fetch_and_add(&clock->next_ns, cost_ns);
}

static __always_inline int drop(struct sluice_counters *count, __u32 wire_len)
{
	count->dropped_packets++;
	count->dropped_bytes += wire_len;
	return TC_ACT_SHOT;
}

static __always_inline void sent(struct sluice_counters *count, __u32 wire_len)
{
	count->sent_packets++;
	count->sent_bytes += wire_len;
}

/*
 * Polices an entry of the maps, with the credit of its limit, and this much at
 * least; gives whether the packet may pass.
 */
static __always_inline _Bool police(__u32 index, struct sluice_counters *count,
				    __u32 wire_len, __u64 credit_ns)
{
	struct sluice_limit *limit = bpf_map_lookup_elem(&limits, &index);
	struct sluice_clock *clock = bpf_map_lookup_elem(&clocks, &index);
	__u64 now_ns, cost_ns;
	struct sluice_step step;

	/* Not a pod with a limit: not ours, passes. */
	if (!limit || !clock || !count || !limit->ns_per_byte)
		return 1;
	now_ns = bpf_ktime_get_ns();
	cost_ns = sluice_cost_ns(limit, wire_len);
	step = sluice_pace(clock->next_ns, now_ns, cost_ns, limit);
	if (!step.admitted && step.departure_ns > now_ns + credit_ns) {
		count->last_horizon_ns = now_ns;
		drop(count, wire_len);
		return 0;
	}
	charge(clock, now_ns, cost_ns, limit);
	sent(count, wire_len);
	return 1;
}

#define IPV4_PROTOCOL_AT 23
#define IPV6_PROTOCOL_AT 20
#define PROTOCOL_TCP 6

/*
 * TCP's least retransmission timeout: with less credit a policed connection gets
 * about half of the limit (11.3 of 20 Mbit/s with 100 ms, on 6.12). What does not
 * yield has no more than the shaper gives, so that it takes nothing from that.
 */
#define TCP_CREDIT_NS 200000000ULL

/*
 * Charges what carries no proof to the pod's own line, and polices it there. What
 * each further segment of a super-packet repeats is counted as is usual: TCP has
 * timestamps.
 */
static __always_inline int police_bypassing(struct __sk_buff *skb, __u32 slot)
{
	struct sluice_counters *count = bpf_map_lookup_elem(&bypassed, &slot);
	_Bool is_ipv6 = skb->protocol == __builtin_bswap16(0x86dd), is_tcp;
	__u32 index = slot * SLUICE_DIRECTIONS + SLUICE_INGRESS;
	__u32 wire_len = skb->len, segments = skb->gso_segs;
	__u8 protocol = 0;

	bpf_skb_load_bytes(skb, is_ipv6 ? IPV6_PROTOCOL_AT : IPV4_PROTOCOL_AT,
			   &protocol, 1);
	is_tcp = protocol == PROTOCOL_TCP;
	if (segments > 1)
		wire_len +=
			(segments - 1) * (14 + (is_ipv6 ? 40 : 20) + (is_tcp ? 32 : 8));
	return police(index, count, wire_len, is_tcp ? TCP_CREDIT_NS : 0) ?
		       TC_ACT_UNSPEC :
		       TC_ACT_SHOT;
}

#endif
