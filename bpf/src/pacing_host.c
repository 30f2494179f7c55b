// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* pacing.h, share.h and hash.h as ordinary functions, for tests/pacing.rs and tests/hash.rs. */
#include "hash.h"
#include "share.h"

__u64 host_cost_ns(const struct sluice_limit *limit, __u32 wire_len)
{
	return sluice_cost_ns(limit, wire_len);
}

struct step {
	__u64 departure_ns; /* when this packet may leave */
	__u64 next_ns;      /* the clock after it */
	__u32 admitted;
	__u32 pad;
};

/* What police.h does where the credit is the horizon: a refused packet costs nothing. */
struct step
host_pace(__u64 clock_ns, __u64 now_ns, __u64 cost_ns, const struct sluice_limit *limit)
{
	struct step step = { .next_ns = clock_ns };

	step.departure_ns = sluice_line_ns(clock_ns, now_ns, limit);
	step.admitted = step.departure_ns <= now_ns + limit->horizon_ns;
	if (step.admitted)
		step.next_ns = step.departure_ns + cost_ns;
	return step;
}

/* What shaper.bpf.c does with a packet of these hashes, on one CPU; a signal drops. */
struct sluice_turn host_enqueue(const struct sluice_limit *limit,
				struct sluice_clock *clock, struct sluice_flows *table,
				__u32 source_hash, const struct sluice_packet *packet)
{
	__u64 now_ns = packet->now_ns;
	struct sluice_turn turn = { .departure_ns = now_ns };
	struct sluice_flow *flow, *source = 0;
	__u64 line_ns = sluice_line_ns(clock->next_ns, now_ns, limit);

	if (sluice_is_idle(limit, clock, now_ns)) {
		clock->idle_ns = now_ns;
		clock->next_ns = line_ns + packet->cost_ns;
		return turn;
	}
	flow = &table->flow[sluice_find(table, clock, 0, packet->hash, now_ns)];
	if (clock->active > SLUICE_FLOWS_ALONE)
		source = &table->flow[sluice_find(table, clock, 1, source_hash, now_ns)];
	turn = sluice_decide(limit, clock, flow, source, packet);
	if (turn.action != SLUICE_SEND)
		return turn;
	clock->next_ns = line_ns + packet->cost_ns;
	if (!turn.early)
		turn.departure_ns = sluice_later(turn.departure_ns, line_ns);
	sluice_take(limit, clock, flow, source, packet, &turn);
	return turn;
}

/* The same where the pod takes part in the node's line. */
struct sluice_turn
host_share(struct sluice_line *node, struct sluice_line *line,
	   struct sluice_flows *table, __u32 wire_len, const struct sluice_packet *of)
{
	__u32 weight = line->limit.weight;
	struct sluice_packet packet = *of;
	struct sluice_packet of_node = {
		.now_ns = of->now_ns, .cost_ns = sluice_cost_ns(&node->limit, wire_len)
	};
	struct sluice_node_turn wait = sluice_decide_node(&node->limit, &node->clock,
							  &node->share, &line->share,
							  &line->limit, &of_node);
	__u64 line_ns = sluice_line_ns(line->clock.next_ns, of->now_ns, &line->limit);
	__u64 node_ns = sluice_line_ns(node->clock.next_ns, of->now_ns, &node->limit);
	__u64 cost_ns = sluice_cost_ns(&line->limit, wire_len);
	struct sluice_turn turn = { .departure_ns = of->now_ns };
	struct sluice_limit limit = line->limit;
	struct sluice_flow *flow;

	if (!wait.busy && sluice_is_idle(&limit, &line->clock, of->now_ns)) {
		line->clock.idle_ns = of->now_ns;
	} else {
		if (wait.busy) {
			limit = sluice_part(&limit, &node->limit, weight, wait.weights);
			packet.node_ns = wait.departure_ns;
			packet.part_ns = wait.share_ns;
		}
		packet.cost_ns = sluice_cost_ns(&limit, wire_len);
		flow = &table->flow[sluice_find(table, &line->clock, 0, packet.hash,
						packet.now_ns)];
		turn = sluice_decide(&limit, &line->clock, flow, 0, &packet);
		if (turn.action != SLUICE_SEND)
			return turn;
		if (!turn.early)
			turn.departure_ns = sluice_later(turn.departure_ns, line_ns);
		sluice_take(&limit, &line->clock, flow, 0, &packet, &turn);
	}
	line->clock.next_ns = line_ns + cost_ns;
	node->clock.next_ns = node_ns + of_node.cost_ns;
	sluice_take_node(&node->clock, &node->share, &line->share, weight, &of_node,
			 &wait);
	return turn;
}

__u32 host_inv_sqrt(__u32 n)
{
	return sluice_inv_sqrt(n);
}

__u32 host_bounds_passed(__u64 wait_ns)
{
	return sluice_bounds_passed(wait_ns);
}

__u64 host_stamp(__u64 departure_ns, __u64 own_ns, __u64 now_ns,
		 const struct sluice_limit *limit)
{
	return sluice_stamp(departure_ns, own_ns, now_ns, limit);
}

__u32 host_ipv4_hash(const void *header, __u64 key)
{
	return sluice_ipv4_hash(header, key);
}

__u32 host_ipv6_hash(const void *header, __u64 key)
{
	return sluice_ipv6_hash(header, key);
}
