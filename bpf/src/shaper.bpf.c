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

#include "hash.h"
#include "police.h"

/*
 * Makes the shared types part of the object's BTF, for the generated Rust. All
 * zero, so that an empty table of flows can be copied from it.
 */
const volatile struct {
	struct sluice_line line;
	struct sluice_counters counters;
	struct sluice_flows flows;
	struct sluice_pod_end pod_end;
	struct sluice_prefix prefix;
} contract;

/* Offsets from the Ethernet header. */
enum { ETHERTYPE = 12, IP = 14, IPV4_SOURCE = 14 + 12, IPV4_DESTINATION = 14 + 16 };
enum { IPV6_SOURCE = 14 + 8, IPV6_DESTINATION = 14 + 24 };

/* Kubernetes' own default of --service-node-port-range. */
enum { NODE_PORTS_BEGIN = 30000, NODE_PORTS_END = 32768 };

/* So many bytes of the headers; none if they are not in the linear part. */
static __always_inline const void *
header(const struct __sk_buff *skb, __u32 offset, __u32 length)
{
	const void *data = (const void *)(long)skb->data + offset;

	return data + length <= (const void *)(long)skb->data_end ? data : 0;
}

/*
 * By addresses and ports of plain TCP and UDP; 0 for all else: fragments, options,
 * extension headers, tags, tunnels, and headers outside the linear part.
 */
static __always_inline __u32 ports_hash(const struct __sk_buff *skb)
{
	const void *ip;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		ip = header(skb, IP, SLUICE_IPV4_BYTES);
		return ip ? sluice_ipv4_hash(ip, hash_key) : 0;
	}
	ip = header(skb, IP, SLUICE_IPV6_BYTES);
	return ip && skb->protocol == bpf_htons(ETH_P_IPV6) ?
		       sluice_ipv6_hash(ip, hash_key) :
		       0;
}

/*
 * The packet's own, if its sender has given it one; else ours, as the kernel's
 * costs several times as much. That keeps fragments and ICMP by address.
 */
static __always_inline __u32 flow_hash(struct __sk_buff *skb)
{
	return skb->hash ?: ports_hash(skb) ?: bpf_get_hash_recalc(skb);
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
__noinline int count_delay(struct sluice_delays *delays, __u64 wait_ns)
{
	__u32 passed = sluice_bounds_passed(wait_ns);

	if (delays && passed)
		__sync_fetch_and_add(&delays->above[(passed - 1) % SLUICE_DELAYS], 1);
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

/*
 * The table of flows that this entry has, which is its slot's last pod's as long as
 * nothing has had to wait for a turn. Who races here forgets a packet or two of a flow.
 */
static __always_inline struct sluice_flows *
table_of(__u32 index, const struct sluice_clock *clock)
{
	void *made = bpf_map_lookup_elem(&flows, &index);
	__u32 first = 0;

	if (made && !clock->last_ns)
		bpf_map_update_elem(made, &first, (const void *)&contract.flows, BPF_ANY);
	return made ? bpf_map_lookup_elem(made, &first) : 0;
}

/*
 * As what it is, a time of departure: fq of 7.x writes to the kernel's log of each
 * stamp that does not say so. The kernel gives that to IP only. A function of its
 * own, as count_delay.
 */
__noinline int stamp(struct __sk_buff *skb, __u64 departure_ns, __u64 now_ns,
		     const struct sluice_limit *limit)
{
	if (!limit)
		return 0;
	departure_ns = sluice_stamp(departure_ns, skb->tstamp, now_ns, limit);
	if (bpf_skb_set_tstamp(skb, departure_ns, BPF_SKB_TSTAMP_DELIVERY_MONO))
		skb->tstamp = departure_ns;
	return 0;
}

/* What is done to each packet that leaves, now or when its turn comes. */
static __always_inline int
let_go(struct __sk_buff *skb, __u32 index, struct sluice_line *line,
       struct sluice_counters *count, __u64 now_ns, __u64 departure_ns)
{
	__u64 wait_ns = departure_ns - now_ns;

	sent(count, skb->wire_len);
	forget_lost(&line->account, now_ns);
	__sync_fetch_and_add(&line->account.charged_bytes, skb->wire_len);
	/* Nothing writes it again before the other end of the veth pair. */
	skb->tc_index = proof_of(index);
	/* Without fq here a stamp would only mislead an fq further on. */
	if (line->limit.mode != SLUICE_PACED)
		return TC_ACT_UNSPEC;
	if (wait_ns) {
		count->sojourn_ns += wait_ns;
		if (sluice_is_delayed(wait_ns))
			count_delay(&line->delays, wait_ns);
	}
	/* Without a stamp, or with one of the past, fq lets it go at once. */
	if (wait_ns || skb->tstamp > now_ns)
		stamp(skb, departure_ns, now_ns, &line->limit);
	return TC_ACT_UNSPEC;
}

/*
 * What is charged to no line. Of what a pod sends the account knows nothing of it
 * either, or it would be credit for what does leave the node; its guard looks itself.
 */
static __always_inline int
pass_free(struct __sk_buff *skb, __u32 index, struct sluice_line *line,
	  struct sluice_counters *count, __u64 now_ns)
{
	if (index % SLUICE_DIRECTIONS == SLUICE_INGRESS)
		return let_go(skb, index, line, count, now_ns, now_ns);
	sent(count, skb->wire_len);
	return TC_ACT_UNSPEC;
}

/*
 * Whether the ports are none that Services of the cluster have on each node: such a
 * port may lead to a pod of another. Of what is not plain nothing is known.
 */
static __always_inline _Bool has_no_node_port(struct __sk_buff *skb, _Bool is_ipv6)
{
	const void *ip = header(skb, IP, is_ipv6 ? SLUICE_IPV6_BYTES : SLUICE_IPV4_BYTES);
	const __be16 *to;

	if (!ip ||
	    !(is_ipv6 ? sluice_ipv6_hash(ip, hash_key) : sluice_ipv4_hash(ip, hash_key)))
		return 0;
	to = ip + (is_ipv6 ? SLUICE_IPV6_BYTES : SLUICE_IPV4_BYTES) - sizeof(*to);
	return bpf_ntohs(*to) < NODE_PORTS_BEGIN || bpf_ntohs(*to) >= NODE_PORTS_END;
}

/* Where in `recent` this would be. */
static __always_inline __u64 *recent_of(__u32 direction, __u32 about)
{
	__u32 index = about * 0x9e3779b1 >> (32 - SLUICE_RECENT_LOG2);

	index |= direction << SLUICE_RECENT_LOG2;
	return bpf_map_lookup_elem(&recent, &index);
}

static __always_inline __u64 known(__u32 about, const struct sluice_line *node)
{
	return (__u64)about << 32 | (__u32)node->share.paths << 2 | SLUICE_KNOWN;
}

/*
 * Whether a packet leaves the node, by the frame itself: skb->protocol is what the
 * sender says it is, and the host removes a tag of VLAN 0. Of what is not IP, or not in
 * the linear part, nothing is known. A function of its own, as count_delay.
 */
__noinline int leaves_node(struct __sk_buff *skb, const struct sluice_line *node)
{
	struct sluice_prefix to = { .bits = 128 };
	const __be16 *type = header(skb, ETHERTYPE, sizeof(*type));
	_Bool is_ipv6 = type && *type == bpf_htons(ETH_P_IPV6);
	const __u32 *address, *where;
	__u64 *recent = 0, it = 0;

	address = header(skb, is_ipv6 ? IPV6_DESTINATION : IPV4_DESTINATION,
			 is_ipv6 ? 16 : 4);
	if (!type || !address || !node)
		return 1;
	if (is_ipv6) {
		__builtin_memcpy(to.address, address, 16);
		/* Where the map has IPv4; the host routes it by its IPv6 routes. */
		if (!to.address[0] && !to.address[1] && to.address[2] == bpf_htonl(0xffff))
			return 1;
	} else if (*type == bpf_htons(ETH_P_IP)) {
		it = known(*address, node);
		recent = recent_of(SLUICE_EGRESS, *address);
		if (recent && (*recent & ~1ULL) == it)
			return *recent & 1;
		to.address[2] = bpf_htonl(0xffff);
		to.address[3] = *address;
	} else {
		return *type != bpf_htons(ETH_P_ARP);
	}
	where = bpf_map_lookup_elem(&routes, &to);
	/* By address and port, which `recent` does not know. */
	if (where && *where == SLUICE_OWN)
		return !has_no_node_port(skb, is_ipv6);
	it |= !where || *where == SLUICE_LEAVES;
	if (recent)
		*recent = it;
	return it & 1;
}

static __always_inline _Bool came_by_uplink(const struct __sk_buff *skb,
					    const struct sluice_line *node)
{
	__u32 ifindex = skb->ingress_ifindex;
	__u64 *recent = recent_of(SLUICE_INGRESS, ifindex), it = known(ifindex, node);

	if (recent && (*recent & ~1ULL) == it)
		return *recent & 1;
	it |= !!bpf_map_lookup_elem(&uplinks, &ifindex);
	if (recent)
		*recent = it;
	return it & 1;
}

/* What neither comes from an uplink nor leaves by one does not use the node's line. */
static __always_inline _Bool uses_node_line(
	struct __sk_buff *skb, const struct sluice_line *node, __u32 direction)
{
	return direction == SLUICE_EGRESS ? !!leaves_node(skb, node) :
					    came_by_uplink(skb, node);
}

/* The node's line and what it makes a packet of this pod wait. */
struct node_wait {
	struct sluice_packet packet;
	struct sluice_node_turn turn;
	struct sluice_limit part;
};

/* A function of its own, as count_delay. */
__noinline int
wait_for_node(struct sluice_line *node, struct sluice_line *line, struct node_wait *wait)
{
	__u32 weight;

	if (!node || !line || !wait)
		return 0;
	weight = line->limit.weight;
	if (!weight)
		return 0;
	wait->turn = sluice_decide_node(&node->limit, &node->clock, &node->share,
					&line->share, &line->limit, &wait->packet);
	if (!wait->turn.busy)
		return 0;
	wait->part = sluice_part(&line->limit, &node->limit, weight, wait->turn.weights);
	return 1;
}

/* The same for what the node's line is charged. */
__noinline int take_from_node(struct sluice_line *node, struct sluice_line *line,
			      struct node_wait *wait)
{
	if (!node || !line || !wait || !line->limit.weight)
		return 0;
	charge(&node->clock, wait->packet.now_ns, wait->packet.cost_ns, &node->limit);
	sluice_take_node(&node->clock, &node->share, &line->share, line->limit.weight,
			 &wait->packet, &wait->turn);
	return 0;
}

/* The same where nothing waits for that line. */
static __always_inline void
use_idle_node(struct sluice_line *node, struct sluice_counters *count, __u64 now_ns,
	      __u32 wire_len)
{
	__u64 cost_ns = sluice_cost_ns(&node->limit, wire_len);

	node->clock.idle_ns = now_ns;
	charge(&node->clock, now_ns, cost_ns, &node->limit);
	count->node_bytes += wire_len;
}

struct decision {
	struct sluice_packet packet;
	struct sluice_turn turn;
};

__noinline int
decide(const struct sluice_limit *limit, struct sluice_clock *clock,
       struct sluice_flow *flow, struct sluice_flow *source, struct decision *it)
{
	if (limit && clock && flow && it)
		it->turn = sluice_decide(limit, clock, flow, source, &it->packet);
	return 0;
}

/* Nothing waits for the line. Another CPU may have been served since that was found. */
static __always_inline int
leave_at_once(struct __sk_buff *skb, __u32 index, struct sluice_line *line,
	      struct sluice_counters *count, __u64 now_ns, __u64 cost_ns)
{
	__u64 line_ns;

	line->clock.idle_ns = now_ns;
	line_ns = charge(&line->clock, now_ns, cost_ns, &line->limit);
	return let_go(skb, index, line, count, now_ns, sluice_later(now_ns, line_ns));
}

static __always_inline int shape(struct __sk_buff *skb, __u32 direction)
{
	__u32 index = skb->tc_classid * SLUICE_DIRECTIONS + direction;
	struct sluice_line *line = bpf_map_lookup_elem(&lines, &index);
	struct sluice_counters *count = bpf_map_lookup_elem(&counters, &index);
	struct sluice_limit *limit;
	struct sluice_clock *clock;
	struct sluice_flows *table;
	struct decision it;
	struct sluice_flow *flow, *source = 0;
	struct sluice_line *node = 0;
	struct node_wait wait;
	_Bool busy = 0;
	__u32 wire_len = skb->wire_len;
	__u64 now_ns, cost_ns, line_ns;

	/* A slot that cannot exist, or one without a limit: not ours, passes. */
	if (!line || !count || !line->limit.ns_per_byte)
		return TC_ACT_UNSPEC;
	limit = &line->limit;
	clock = &line->clock;
	now_ns = bpf_ktime_get_ns();
	cost_ns = sluice_cost_ns(limit, wire_len);
	if (limit->weight) {
		__u32 of_node = SLUICE_NODE * SLUICE_DIRECTIONS + direction;

		node = bpf_map_lookup_elem(&lines, &of_node);
		if (node && !uses_node_line(skb, node, direction)) {
			if (limit->node_only)
				return pass_free(skb, index, line, count, now_ns);
			node = 0;
		}
		busy = node && !sluice_is_idle(&node->limit, &node->clock, now_ns);
	}
	if (!busy && sluice_is_idle(limit, clock, now_ns)) {
		if (node)
			use_idle_node(node, count, now_ns, wire_len);
		return leave_at_once(skb, index, line, count, now_ns, cost_ns);
	}
	if (node) {
		wait = (struct node_wait){ .packet.now_ns = now_ns };
		wait.packet.cost_ns = sluice_cost_ns(&node->limit, wire_len);
		busy = wait_for_node(node, line, &wait);
	}
	table = table_of(index, clock);
	/* Made before the limit is set; without it all flows would be one. */
	if (!table) {
		count->unready_packets++;
		return drop_into_class(skb, count);
	}
	it = (struct decision){ .packet.now_ns = now_ns, .packet.cost_ns = cost_ns };
	if (busy) {
		limit = &wait.part;
		it.packet.cost_ns = sluice_cost_ns(limit, wire_len);
		it.packet.node_ns = wait.turn.departure_ns;
		it.packet.part_ns = wait.turn.share_ns;
	}
	it.packet.segments = skb->gso_segs;
	it.packet.hash = flow_hash(skb);
	flow = find_flow(table, clock, 0, it.packet.hash, now_ns);
	if (clock->active > SLUICE_FLOWS_ALONE)
		source = find_flow(table, clock, 1, source_hash(skb, direction), now_ns);
	decide(limit, clock, flow, source, &it);
	if (it.turn.action == SLUICE_REFUSE) {
		count->last_horizon_ns = now_ns;
		return drop_into_class(skb, count);
	}
	if (it.turn.action == SLUICE_SIGNAL) {
		if (!limit->ecn || !bpf_skb_ecn_set_ce(skb)) {
			count->aqm_packets++;
			count->last_aqm_ns = now_ns;
			return drop_into_class(skb, count);
		}
		count->marked_packets++;
	}
	line_ns = charge(clock, now_ns, cost_ns, &line->limit);
	if (node) {
		take_from_node(node, line, &wait);
		count->node_bytes += wire_len;
	}
	/* Another CPU may have been served since. */
	if (!it.turn.early)
		it.turn.departure_ns = sluice_later(it.turn.departure_ns, line_ns);
	/* Where the node is what it waits for, not the pod's own line. */
	line_ns = sluice_later(line_ns, now_ns);
	if (busy && it.packet.node_ns > line_ns && it.turn.departure_ns > line_ns)
		__sync_fetch_and_add(&line->share.waited_ns,
				     it.turn.departure_ns - line_ns);
	sluice_take(limit, clock, flow, source, &it.packet, &it.turn);
	return let_go(skb, index, line, count, now_ns, it.turn.departure_ns);
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

/*
 * As police_unshaped, of a pod that shares the node: no queue of ours holds what comes
 * here, so it passes at once by its part, or not at all.
 */
static __always_inline int police_share(struct __sk_buff *skb, __u32 index)
{
	__u32 of_node = SLUICE_NODE * SLUICE_DIRECTIONS + SLUICE_EGRESS;
	struct sluice_line *node = bpf_map_lookup_elem(&lines, &of_node);
	struct sluice_line *line = bpf_map_lookup_elem(&lines, &index);
	struct sluice_counters *count = bpf_map_lookup_elem(&unshaped, &index);
	struct sluice_counters *sent = bpf_map_lookup_elem(&counters, &index);
	_Bool stays = node && line && line->limit.weight && !leaves_node(skb, node);
	struct node_wait wait = {};
	struct sluice_frame frame;
	__u64 allowed_ns;
	int verdict;

	if (stays && line->limit.node_only)
		return TC_ACT_UNSPEC;
	frame = frame_of(skb);
	if (!node || !line || !count || !sent || !line->limit.weight || stays)
		return police_unshaped(index, &frame);
	wait.packet.now_ns = bpf_ktime_get_ns();
	wait.packet.cost_ns = sluice_cost_ns(&node->limit, frame.wire_len);
	allowed_ns = wait.packet.now_ns;
	if (line->limit.mode == SLUICE_POLICED)
		allowed_ns += line->limit.horizon_ns;
	if (wait_for_node(node, line, &wait) && wait.turn.departure_ns > allowed_ns) {
		count->last_horizon_ns = wait.packet.now_ns;
		return drop(count, frame.wire_len);
	}
	verdict = police_unshaped(index, &frame);
	if (verdict == TC_ACT_UNSPEC) {
		take_from_node(node, line, &wait);
		sent->node_bytes += frame.wire_len;
	}
	return verdict;
}

/*
 * Lets pass what the pod's own shaper has charged, and polices the rest: of a
 * shaper that does its work nothing is left for that (privileged pods can remove
 * it, and write tc_index, but not what was charged).
 */
SEC("tc")
int guard(struct __sk_buff *skb)
{
	__u32 tc_index = skb->tc_index, ifindex = skb->ifindex, index;
	__u32 *slot;

	/* It proves nothing further on. */
	skb->tc_index = 0;
	if (was_shaped_for(skb, tc_index, ifindex))
		return TC_ACT_UNSPEC;
	slot = bpf_map_lookup_elem(&guards, &ifindex);
	/* Not a pod of ours: passes. */
	if (!slot)
		return TC_ACT_UNSPEC;
	index = *slot * SLUICE_DIRECTIONS + SLUICE_EGRESS;
	return was_shaped(skb, tc_index, index) ? TC_ACT_UNSPEC :
						  police_share(skb, index);
}

/*
 * The ingress guard, as a filter whose classid is the slot. Programs that hand
 * packets to a pod by bpf_redirect_peer pass its host end, and so its shaper.
 */
SEC("tc")
int ingress_guard(struct __sk_buff *skb)
{
	__u32 index = skb->tc_classid * SLUICE_DIRECTIONS + SLUICE_INGRESS;

	return guard_entry(skb, skb->tc_index, index);
}

/* Helpers such as bpf_ktime_get_ns ask for a GPL-compatible licence. */
char _license[] SEC("license") = "GPL";
