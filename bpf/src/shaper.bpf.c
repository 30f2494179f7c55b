// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Entry points only. shape_egress runs on clsact egress of the pod's own
 * interface, inside the pod's network namespace; shape_ingress runs as a
 * filter of the host veth's root qdisc, after network policy (clsact or tcx
 * egress of that veth) has spoken; guard runs on the host veth's ingress, before
 * everybody else. All give TC_ACT_UNSPEC (on tcx the same number is TCX_NEXT)
 * or TC_ACT_SHOT and nothing else: they never end a chain that somebody else
 * is part of.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "pacing.h"

/* Makes the shared types part of the object's BTF, for the generated Rust. */
const volatile struct {
	struct sluice_limit limit;
	struct sluice_clock clock;
	struct sluice_counters counters;
	struct sluice_flows flows;
} contract;

#define CLOCK_TRIES 4

/*
 * One atomic step for each packet. Who loses CLOCK_TRIES races knows that
 * another CPU has just moved the clock, so it is not idle and adding is right:
 * the sum stays exact, only the horizon may be passed by one packet.
 */
static __always_inline struct sluice_step
reserve(struct sluice_clock *clock, __u64 now_ns, __u64 cost_ns,
	const struct sluice_limit *limit)
{
	struct sluice_step step = {};

#pragma unroll
	for (int i = 0; i < CLOCK_TRIES; i++) {
		__u64 seen_ns = *(volatile __u64 *)&clock->next_ns;

		step = sluice_pace(seen_ns, now_ns, cost_ns, limit);
		if (!step.admitted)
			return step;
		if (__sync_val_compare_and_swap(&clock->next_ns, seen_ns,
						step.next_ns) == seen_ns)
			return step;
	}
	step.departure_ns = __sync_fetch_and_add(&clock->next_ns, cost_ns);
	return step;
}

static __always_inline int shape(struct __sk_buff *skb, __u32 direction)
{
	__u32 index = skb->tc_classid * SLUICE_DIRECTIONS + direction;
	struct sluice_limit *limit = bpf_map_lookup_elem(&limits, &index);
	struct sluice_clock *clock = bpf_map_lookup_elem(&clocks, &index);
	struct sluice_counters *count = bpf_map_lookup_elem(&counters, &index);
	__u32 wire_len = skb->wire_len;
	struct sluice_step step;
	__u64 now_ns;

	/* A slot that cannot exist, or one without a limit: not ours, passes. */
	if (!limit || !clock || !count || !limit->ns_per_byte)
		return TC_ACT_UNSPEC;

	now_ns = bpf_ktime_get_ns();
	step = reserve(clock, now_ns, sluice_cost_ns(limit, wire_len), limit);
	if (!step.admitted) {
		count->dropped_packets++;
		count->dropped_bytes += wire_len;
		return TC_ACT_SHOT;
	}
	count->sent_packets++;
	count->sent_bytes += wire_len;
	/* Without fq here a stamp would only mislead an fq further on. */
	if (limit->mode == SLUICE_PACED)
		skb->tstamp = sluice_stamp(step.departure_ns, skb->tstamp,
					   now_ns, limit);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int shape_egress(struct __sk_buff *skb)
{
	return shape(skb, SLUICE_EGRESS);
}

SEC("tc")
int shape_ingress(struct __sk_buff *skb)
{
	return shape(skb, SLUICE_INGRESS);
}

/* The least that each further segment of a super-packet repeats: UDP over IPv4. */
#define MIN_SEGMENT_HEADERS (14 + 20 + 8)

/*
 * wire_len at ingress lacks the MAC header on every kernel and the headers of
 * a super-packet's segments on some (net/core/dev.c, sch_handle_ingress). This
 * never counts more than the shaper did, so the guard is silent beside it.
 */
static __always_inline __u32 least_wire_len(const struct __sk_buff *skb)
{
	__u32 segments = skb->gso_segs;

	return skb->len + (segments > 1 ? (segments - 1) * MIN_SEGMENT_HEADERS : 0);
}

/*
 * Polices what a pod sends, with so much credit that it never speaks as long as
 * the pod's own shaper does its work (privileged pods can remove that).
 */
SEC("tc")
int guard(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	__u32 *slot = bpf_map_lookup_elem(&guards, &ifindex);
	__u32 index = (slot ? *slot : 0) * SLUICE_DIRECTIONS + SLUICE_GUARD;
	struct sluice_limit *limit = bpf_map_lookup_elem(&limits, &index);
	struct sluice_clock *clock = bpf_map_lookup_elem(&clocks, &index);
	struct sluice_counters *count = bpf_map_lookup_elem(&counters, &index);
	__u32 wire_len = least_wire_len(skb);

	/* Not a pod with a limit: not ours, passes. */
	if (!limit || !clock || !count || !limit->ns_per_byte)
		return TC_ACT_UNSPEC;
	if (!reserve(clock, bpf_ktime_get_ns(), sluice_cost_ns(limit, wire_len),
		     limit).admitted) {
		count->dropped_packets++;
		count->dropped_bytes += wire_len;
		return TC_ACT_SHOT;
	}
	count->sent_packets++;
	count->sent_bytes += wire_len;
	return TC_ACT_UNSPEC;
}

/* Helpers such as bpf_ktime_get_ns ask for a GPL-compatible licence. */
char _license[] SEC("license") = "GPL";
