// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Entry points only. shape_egress and shape_ingress are filters of a root qdisc
 * of ours, on the pod's own end and on the host's end of the veth pair, behind
 * all of clsact and tcx. What they drop goes to a class of that qdisc; they must
 * never be attached anywhere else. guard runs on the host end's ingress, before
 * everything else, ingress_guard on the pod's own. These give TC_ACT_UNSPEC (on
 * tcx the same number is TCX_NEXT) or TC_ACT_SHOT and nothing else: they never
 * end a chain that others are part of.
 */
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>

#include "police.h"

/*
 * Makes the shared types part of the object's BTF, for the generated Rust. All
 * zero, so that an empty table of flows can be copied from it.
 */
const volatile struct {
	struct sluice_limit limit;
	struct sluice_clock clock;
	struct sluice_counters counters;
	struct sluice_delays delays;
	struct sluice_flows flows;
	struct sluice_pod_end pod_end;
} contract;

/* Offsets from the Ethernet header: source, destination. */
enum { IPV4_SOURCE = 14 + 12, IPV4_DESTINATION = 14 + 16 };
enum { IPV6_SOURCE = 14 + 8, IPV6_DESTINATION = 14 + 24 };

/* So many bytes of the headers; none if they are not in the linear part. */
static __always_inline const void *
header(const struct __sk_buff *skb, __u32 offset, __u32 length)
{
	const void *data = (const void *)(long)skb->data + offset;

	return data + length <= (const void *)(long)skb->data_end ? data : 0;
}

/* By the address of the other end; all that is not IP is one source. */
static __always_inline __u32 source_hash(const struct __sk_buff *skb, __u32 direction)
{
	_Bool sends = direction == SLUICE_EGRESS;
	const __u32 *address;
	__u32 hash = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		address = header(skb, sends ? IPV4_DESTINATION : IPV4_SOURCE, 4);
		hash = address ? *address : 0;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		address = header(skb, sends ? IPV6_DESTINATION : IPV6_SOURCE, 16);
		if (address)
			hash = ((address[0] * 31 + address[1]) * 31 + address[2]) * 31 +
			       address[3];
	}
	hash ^= hash >> 16;
	hash *= 0x9e3779b1;
	return hash ^ hash >> 16;
}

/* On a root qdisc of ours: so that the sender hears of it. */
static __always_inline int
drop_into_class(struct __sk_buff *skb, struct sluice_counters *count)
{
	drop(count, skb->wire_len);
	skb->tc_classid = SLUICE_DROP_CLASS;
	return TC_ACT_OK;
}

/*
 * A function of its own, which the verifier checks once: inlined, it would be
 * walked again from each of the many states that sluice_decide ends in.
 */
__noinline int count_delay(__u32 index, __u64 wait_ns)
{
	struct sluice_delays *delay = bpf_map_lookup_elem(&delays, &index);
	__u32 passed = sluice_bounds_passed(wait_ns);

	if (delay && passed)
		__sync_fetch_and_add(&delay->above[(passed - 1) % SLUICE_DELAYS], 1);
	return 0;
}

/* The same: the verifier would walk each of its ways out again and again. */
__noinline int find(struct sluice_flows *table, const struct sluice_clock *clock,
		    __u32 is_source, __u32 hash, __u64 now_ns)
{
	return table && clock ? sluice_find(table, clock, is_source, hash, now_ns) : 0;
}

static __always_inline struct sluice_flow *
find_flow(struct sluice_flows *table, const struct sluice_clock *clock, __u32 is_source,
	  __u32 hash, __u64 now_ns)
{
	__u32 number = find(table, clock, is_source, hash, now_ns);

	return &table->flow[number % SLUICE_FLOWS];
}

static __always_inline int shape(struct __sk_buff *skb, __u32 direction)
{
	__u32 slot = skb->tc_classid, first = 0;
	__u32 index = slot * SLUICE_DIRECTIONS + direction;
	struct sluice_limit *limit = bpf_map_lookup_elem(&limits, &index);
	struct sluice_clock *clock = bpf_map_lookup_elem(&clocks, &index);
	struct sluice_counters *count = bpf_map_lookup_elem(&counters, &index);
	void *made = bpf_map_lookup_elem(&flows, &index);
	struct sluice_flows *table;
	struct sluice_packet packet;
	struct sluice_turn turn;
	struct sluice_flow *flow, *source = 0;
	__u64 line_ns, wait_ns;

	/* A slot that cannot exist, or one without a limit: not ours, passes. */
	if (!limit || !clock || !count || !limit->ns_per_byte)
		return TC_ACT_UNSPEC;
	table = made ? bpf_map_lookup_elem(made, &first) : 0;
	/* Made before the limit is set; without it all flows would be one. */
	if (!table) {
		count->unready_packets++;
		return drop_into_class(skb, count);
	}
	/*
	 * A clock that has never run is a new pod's, and the table its slot's
	 * last one's. Who races here forgets a packet or two of a flow.
	 */
	if (!clock->next_ns)
		bpf_map_update_elem(made, &first, (const void *)&contract.flows, BPF_ANY);

	packet.now_ns = bpf_ktime_get_ns();
	packet.cost_ns = sluice_cost_ns(limit, skb->wire_len);
	packet.segments = skb->gso_segs;
	/*
	 * The kernel's hash keeps fragments and ICMP by address, TCP and UDP by
	 * port, and is there already for most packets.
	 */
	packet.hash = skb->hash ?: bpf_get_hash_recalc(skb);
	flow = find_flow(table, clock, 0, packet.hash, packet.now_ns);
	if (clock->active > SLUICE_FLOWS_ALONE)
		source = find_flow(table, clock, 1, source_hash(skb, direction),
				   packet.now_ns);
	turn = sluice_decide(limit, clock, flow, source, &packet);
	if (turn.action == SLUICE_REFUSE) {
		count->last_horizon_ns = packet.now_ns;
		return drop_into_class(skb, count);
	}
	if (turn.action == SLUICE_SIGNAL) {
		if (!limit->ecn || !bpf_skb_ecn_set_ce(skb)) {
			count->aqm_packets++;
			count->last_aqm_ns = packet.now_ns;
			return drop_into_class(skb, count);
		}
		count->marked_packets++;
	}
	line_ns = charge(clock, packet.now_ns, packet.cost_ns, limit);
	/* Another CPU may have been served since the decision. */
	if (!turn.early)
		turn.departure_ns = sluice_later(turn.departure_ns, line_ns);
	sluice_take(limit, clock, flow, source, &packet, &turn);
	sent(count, skb->wire_len);
	/* Nothing writes it again before the pod's own ingress. */
	if (direction == SLUICE_INGRESS)
		skb->tc_index = proof_of(slot);
	/* Without fq here a stamp would only mislead an fq further on. */
	if (limit->mode == SLUICE_PACED) {
		wait_ns = turn.departure_ns - packet.now_ns;
		count->sojourn_ns += wait_ns;
		if (sluice_is_delayed(wait_ns))
			count_delay(index, wait_ns);
		skb->tstamp = sluice_stamp(turn.departure_ns, skb->tstamp,
					   packet.now_ns, limit);
	}
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
	struct sluice_counters *count = bpf_map_lookup_elem(&counters, &index);

	/* A pod's own filters can write it: nothing that it sends is a proof. */
	skb->tc_index = 0;
	return police(index, count, least_wire_len(skb), 0) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/*
 * The ingress guard, as a filter whose classid is the slot. Programs that hand
 * packets to a pod by bpf_redirect_peer pass its host end, and so its shaper.
 */
SEC("tc")
int ingress_guard(struct __sk_buff *skb)
{
	__u32 slot = skb->tc_classid;

	if (skb->tc_index == proof_of(slot))
		return TC_ACT_UNSPEC;
	return police_bypassing(skb, slot);
}

/* Helpers such as bpf_ktime_get_ns ask for a GPL-compatible licence. */
char _license[] SEC("license") = "GPL";
