/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Node share: the same clock once more, for the node's own line, of which each pod
 * has a part by its weight. No helpers, no maps, as pacing.h.
 */
#ifndef SLUICE_SHARE_H
#define SLUICE_SHARE_H

#include "pacing.h"

/* A part of 7/8 and more counts as all of it: TCP's rate is never quite steady. */
#define SLUICE_LIGHT_PARTS 7
#define SLUICE_ALL_PARTS 8

/* Light pods leave at least this part of the line to the others. */
#define SLUICE_LEFT_PARTS 64

/* As SLUICE_PUT_OFF_NS, for pods: what more than one flow of a pod keeps queued is to wait for its part. */
#define SLUICE_NODE_PUT_OFF_NS 100000000ULL

/* What a pod may owe of its part: longer than any queue, so that queues are cut by it. */
#define SLUICE_OWED_NS 1500000000ULL

/* Fixed point of how much slower a pod is by its part. */
#define SLUICE_RATIO_SHIFT 10

/* What the node's line does to a packet of a pod. */
struct sluice_node_turn {
	__u64 departure_ns; /* not before; now where the line is free */
	__u64 share_ns;     /* the pod's clock before this packet */
	__u64 weights;      /* that share the line, the pod's own included */
	__u64 busy;         /* something waits for the line */
};

/*
 * Whose weights share the line, as if they had all of it: what light pods used in
 * the round is not theirs. Where all are light, nothing is known of their parts.
 */
SLUICE_INLINE void
sluice_begin_node_round(struct sluice_clock *clock, struct sluice_share *node,
			__u64 line_ns, __u64 now_ns)
{
	_Bool rested = clock->last_ns + SLUICE_ROUND_NS <= now_ns;
	__u64 span_ns = now_ns - node->began_ns, left_ns;

	left_ns = sluice_later(sluice_before(span_ns, node->used_ns),
			       span_ns / SLUICE_LEFT_PARTS);
	if (clock->queued)
		clock->queued = clock->queued * span_ns / (left_ns + 1);
	else
		clock->queued = node->light;
	sluice_begin_round(clock, line_ns, now_ns);
	node->span_ns = rested ? 0 : span_ns;
	node->began_ns = now_ns;
	node->used_ns = 0;
	node->light = 0;
}

/*
 * As many as make the pod's part its floor, which is lowered where the line is less
 * than all floors, which the node's own stands for.
 */
SLUICE_INLINE __u64 sluice_floor_weights(const struct sluice_limit *limit,
					 const struct sluice_limit *capacity)
{
	__u64 all = capacity->floor_ns_per_byte, line = capacity->ns_per_byte;

	return limit->floor_ns_per_byte * limit->weight /
	       (all && all < line ? all : line);
}

/*
 * A pod's first packet in a round: what it used in the one before tells what it is
 * in this. One that is at its floor is light, whatever it uses: others share the rest.
 */
SLUICE_INLINE void
sluice_count_pod(struct sluice_clock *clock, struct sluice_share *node,
		 struct sluice_share *share, const struct sluice_limit *limit,
		 __u64 floor, __u64 weights, __u64 now_ns)
{
	_Bool is_next = share->round + 1 == clock->round;
	__u64 part_ns = node->span_ns * limit->weight / weights;

	share->light = is_next && share->share_ns <= now_ns &&
		       share->used_ns * SLUICE_ALL_PARTS < part_ns * SLUICE_LIGHT_PARTS;
	share->light |= floor && floor < weights;
	share->round = clock->round;
	share->used_ns = 0;
	if (share->light)
		node->light += limit->weight;
	else
		clock->queued += limit->weight;
}

/*
 * Whose turn it is on the node's line: each pod's at the pace of its part, and no
 * later than all that was sent has left. Nothing is signalled or refused here:
 * flows see the wait inside the pod.
 */
SLUICE_INLINE struct sluice_node_turn
sluice_decide_node(const struct sluice_limit *capacity, struct sluice_clock *clock,
		   struct sluice_share *node, struct sluice_share *share,
		   const struct sluice_limit *limit, const struct sluice_packet *packet)
{
	__u64 now_ns = packet->now_ns, credit_ns, floor;
	__u64 line_ns = sluice_line_ns(clock->next_ns, now_ns, capacity);
	struct sluice_node_turn turn = { .departure_ns = now_ns };

	turn.busy = !sluice_is_idle(capacity, clock, now_ns);
	if (!turn.busy) {
		clock->idle_ns = now_ns;
		return turn;
	}
	if (now_ns >= clock->round_ns)
		sluice_begin_node_round(clock, node, line_ns, now_ns);
	floor = sluice_floor_weights(limit, capacity);
	turn.weights = sluice_at_least_one(clock->queued, clock->active);
	turn.weights = sluice_later(turn.weights, limit->weight);
	if (share->round != clock->round)
		sluice_count_pod(clock, node, share, limit, floor, turn.weights, now_ns);
	if (floor)
		turn.weights = sluice_earlier(turn.weights, floor);
	credit_ns = capacity->quantum_ns * turn.weights / limit->weight;
	turn.share_ns = sluice_later(share->share_ns, sluice_before(now_ns, credit_ns));
	if (line_ns <= now_ns) {
		turn.departure_ns = sluice_later(now_ns, share->departure_ns);
		turn.share_ns = sluice_earlier(turn.share_ns, turn.departure_ns);
		return turn;
	}
	turn.share_ns = sluice_earlier(turn.share_ns, line_ns + SLUICE_OWED_NS);
	turn.departure_ns = sluice_later(
		now_ns, sluice_earlier(turn.share_ns, line_ns + SLUICE_NODE_PUT_OFF_NS));
	return turn;
}

/* The pod's side of a packet that is sent; the node's clock is the caller's. */
SLUICE_INLINE void
sluice_take_node(struct sluice_clock *clock, struct sluice_share *node,
		 struct sluice_share *share, __u32 weight,
		 const struct sluice_packet *packet, const struct sluice_node_turn *turn)
{
	if (!turn->busy)
		return;
	share->share_ns = turn->share_ns + packet->cost_ns * turn->weights / weight;
	share->departure_ns = turn->departure_ns;
	share->used_ns += packet->cost_ns;
	if (share->light)
		node->used_ns += packet->cost_ns;
	clock->last_ns = sluice_later(clock->last_ns, turn->departure_ns);
}

/* The limit that a packet of a pod is under while its part of the node's line is less. */
SLUICE_INLINE struct sluice_limit
sluice_part(const struct sluice_limit *limit, const struct sluice_limit *capacity,
	    __u32 weight, __u64 weights)
{
	struct sluice_limit part = *limit;
	__u64 ns_per_byte = capacity->ns_per_byte * weights / weight, ratio;

	if (ns_per_byte > limit->ns_per_byte) {
		ratio = (ns_per_byte << SLUICE_RATIO_SHIFT) / limit->ns_per_byte;
		part.quantum_ns = limit->quantum_ns * ratio >> SLUICE_RATIO_SHIFT;
		part.ns_per_byte = ns_per_byte;
	}
	return part;
}

#endif
