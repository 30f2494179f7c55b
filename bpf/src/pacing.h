/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The pacing arithmetic. A virtual clock says when the line of one pod is free
 * again; every packet advances it, so the pod's rate is exact whatever else is
 * decided here: whose turn it is (flow-aware EDT) and who must slow down
 * (CoDel). No helpers, no maps: the same text is compiled for the host and
 * property-tested there (tests/pacing.rs).
 */
#ifndef SLUICE_PACING_H
#define SLUICE_PACING_H

#include "contract.h"

#define SLUICE_INLINE static inline __attribute__((always_inline))

/*
 * How much of the line may leave before its turn within two rounds: what the
 * rate may be passed by, once. On a slow line it is a quarter of a quantum. A
 * 40th of all time comes back meanwhile, however long a round lasts. One
 * sparse packet may take an eighth of what is left, so that large ones leave
 * room for small ones; in a crowd, where many look new, a 16th.
 */
#define SLUICE_EARLY_NS 10000000ULL
#define SLUICE_EARLY_OF_QUANTUM 4
#define SLUICE_EARLY_OF_TIME 40
#define SLUICE_EARLY_PARTS 8
#define SLUICE_CROWD_PARTS 16

/* A round lasts at least as long as a sparse flow needs to show what it is. */
#define SLUICE_ROUND_NS 16000000ULL

/*
 * Quanta that a bulk flow may keep queued at its share whatever the target is.
 * TCP small queues leaves two or three in the qdisc (net/ipv4/tcp_output.c,
 * tcp_small_queue_check), and BBR keeps four to six on the way: less room
 * would drop what backpressure holds already, or what is sent all the same. One
 * flow has room for what TCP begins with (RFC 6928), as a loss then costs a
 * timeout. All flows together never keep more than the time or the bytes below,
 * which is far within fq's horizon and bounds what fq must have room for. The
 * last part of the room is for who has no more than its share.
 */
#define SLUICE_STANDING 6
#define SLUICE_STANDING_LEAST 10
#define SLUICE_STANDING_NS 1000000000ULL
#define SLUICE_STANDING_BYTES_LOG2 24
#define SLUICE_LAST_ROOM 4

/*
 * How far behind the line a departure may lie because of its flow's share: what
 * the rate may be passed by, once, when others come to the line meanwhile.
 */
#define SLUICE_PUT_OFF_NS 25000000ULL

/* Of more flows than this in a round, each has a share of its source's share. */
#define SLUICE_FLOWS_ALONE 8

/* The queue of more flows than this is shorter, or new ones would find no bucket. */
#define SLUICE_CROWD 64

/* What was queued in a round has left after so many more. */
#define SLUICE_SHARED_ROUNDS 4

/* CoDel's interval in targets: RFC 8289 section 4.3 has 100 ms and 5 ms. */
#define SLUICE_INTERVAL_TARGETS 20

SLUICE_INLINE __u64 sluice_later(__u64 a_ns, __u64 b_ns)
{
	return a_ns > b_ns ? a_ns : b_ns;
}

SLUICE_INLINE __u64 sluice_earlier(__u64 a_ns, __u64 b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

SLUICE_INLINE __u64 sluice_before(__u64 now_ns, __u64 span_ns)
{
	return now_ns > span_ns ? now_ns - span_ns : 0;
}

/* Nanoseconds that a frame of wire_len bytes takes at this limit. */
SLUICE_INLINE __u64 sluice_cost_ns(const struct sluice_limit *limit, __u32 wire_len)
{
	return (limit->ns_per_byte * wire_len) >> SLUICE_NS_PER_BYTE_SHIFT;
}

/*
 * When the line is free: an idle clock is pulled up to now - burst_ns, and that
 * is all the credit there is, however long the pod was idle.
 */
SLUICE_INLINE __u64 sluice_line_ns(__u64 clock_ns, __u64 now_ns,
				   const struct sluice_limit *limit)
{
	return sluice_later(clock_ns, sluice_before(now_ns, limit->burst_ns));
}

enum sluice_action {
	SLUICE_SEND = 0,
	SLUICE_SIGNAL = 1, /* send it marked, or drop it */
	SLUICE_REFUSE = 2, /* beyond the horizon: drop it */
};

struct sluice_packet {
	__u64 now_ns;
	__u64 cost_ns;
	__u32 segments; /* of a super-packet; else 0 or 1 */
	__u32 hash;     /* of its flow */
	__u64 node_ns; /* when the node's line is free for the pod; 0: it does not wait */
	__u64 part_ns; /* when the pod's part of that is */
};

/* What is decided for a packet; sluice_take makes it so. */
struct sluice_turn {
	__u64 departure_ns;
	__u64 share_ns;  /* the flow's clock before this packet */
	__u64 source_ns; /* its source's, if sources share */
	__u32 flows;     /* that queue, this one included */
	__u32 parts;     /* of the line, of which the flow has one */
	__u32 sources;   /* the same for the source */
	__u32 action;    /* enum sluice_action */
	__u32 early;     /* leaves before its turn */
	__u32 pad;
};

/* 6.1 forgets the bounds of a number when clang spills it, or takes | for +. */
SLUICE_INLINE struct sluice_flow *sluice_bucket(struct sluice_flows *table, __u32 number)
{
	asm volatile("" : "+r"(number));
	return &table->flow[number % SLUICE_FLOWS];
}

/* Where in the table the set of whatever hashes to this begins. */
SLUICE_INLINE __u32 sluice_set(_Bool is_source, __u32 hash)
{
	const __u32 flows = SLUICE_FLOWS - SLUICE_SOURCES;
	__u64 sets = (is_source ? SLUICE_SOURCES : flows) / SLUICE_WAYS;

	return (is_source ? flows : 0) + (hash * sets >> 32) * SLUICE_WAYS;
}

/*
 * The number of the bucket of the flow or source that hashes to this: its own in
 * either of two sets, else the least indebted one of them with nothing queued,
 * else one that it shares. What shares does so until all that was queued so has
 * left (four rounds), or it would overtake itself in a bucket of its own.
 */
SLUICE_INLINE __u32 sluice_find(struct sluice_flows *table,
				const struct sluice_clock *clock, _Bool is_source,
				__u32 hash, __u64 now_ns)
{
	__u32 set = sluice_set(is_source, hash), none = SLUICE_FLOWS, number = none;
	__u32 shared = set + (hash >> 16) % SLUICE_WAYS;
	struct sluice_flow *flow;
	__u64 least_ns = ~0ULL;
	__u8 round = clock->round;
	__u16 tag = hash;

	for (int way = 0; way < 2 * SLUICE_WAYS; way++) {
		__u32 other = set + way % SLUICE_WAYS;

		flow = sluice_bucket(table, other);
		if (flow->tag == tag)
			return other;
		if (flow->departure_ns <= now_ns && flow->share_ns < least_ns) {
			least_ns = flow->share_ns;
			number = other;
		}
		if (way == SLUICE_WAYS - 1)
			set = sluice_set(is_source, hash * 0x9e3779b1);
	}
	flow = sluice_bucket(table, shared);
	if (number == none || (flow->departure_ns > now_ns &&
			       (__u8)(round - flow->shared) <= SLUICE_SHARED_ROUNDS)) {
		flow->shared = round;
		/* One more that queues, or nothing would shorten a queue that keeps all buckets. */
		flow->round = clock->round - 1;
		return shared;
	}
	flow = sluice_bucket(table, number);
	flow->share_ns = 0;
	flow->sparse_ns = 0;
	flow->above_ns = 0;
	flow->signal_ns = 0;
	flow->signals = 0;
	flow->signalling = 0;
	flow->shared = round - SLUICE_SHARED_ROUNDS - 1;
	flow->tag = tag;
	flow->round = clock->round - 1;
	return number;
}

/* In the bucket of another flow: it owes nothing of that one's share, and takes none. */
SLUICE_INLINE _Bool sluice_is_guest(const struct sluice_flow *flow,
				    const struct sluice_packet *packet)
{
	return flow->tag != (__u16)packet->hash;
}

/* Grows at once and shrinks by half: some that queue are missed in a round. */
SLUICE_INLINE __u32 sluice_sharing(__u32 queued, __u32 active)
{
	return queued >= active ? queued : (queued + active) / 2;
}

/*
 * A round ends when all that was queued at its start has left: by then every
 * flow that queues has sent again, so who queued can be counted, and what left
 * early in the round before has been paid for. Where the line was free for as
 * long as a round, nothing queues any more.
 */
SLUICE_INLINE void
sluice_begin_round(struct sluice_clock *clock, __u64 line_ns, __u64 now_ns)
{
	_Bool rested = clock->last_ns + SLUICE_ROUND_NS <= now_ns;

	clock->active = rested ? 0 : sluice_sharing(clock->queued, clock->active);
	clock->sources = rested ? 0 :
				  sluice_sharing(clock->queued_sources, clock->sources);
	clock->queued = 0;
	clock->queued_sources = 0;
	/* A crowd's rounds are short and its flows look new: no more than in any time. */
	if (clock->active <= SLUICE_CROWD)
		clock->early_ns -= sluice_later(clock->earlier_ns, now_ns) - now_ns;
	clock->earlier_ns = clock->early_ns;
	clock->round++;
	clock->round_ns = sluice_later(line_ns, now_ns + SLUICE_ROUND_NS);
}

/* When so many packets that left early will have been made up for. */
SLUICE_INLINE __u64 sluice_early_ns(const struct sluice_clock *clock,
				    const struct sluice_packet *packet, __u32 packets)
{
	return sluice_later(clock->early_ns, packet->now_ns) +
	       SLUICE_EARLY_OF_TIME * packets * packet->cost_ns;
}

/* Nothing queued, at most half of its share used of late, and room for it. */
SLUICE_INLINE _Bool sluice_may_pass(
	const struct sluice_clock *clock, const struct sluice_flow *flow,
	const struct sluice_packet *packet, const struct sluice_limit *limit)
{
	__u32 parts = clock->active > SLUICE_CROWD ? SLUICE_CROWD_PARTS :
						     SLUICE_EARLY_PARTS;

	return flow->sparse_ns <= packet->now_ns &&
	       flow->departure_ns <= packet->now_ns &&
	       packet->cost_ns <= limit->quantum_ns &&
	       sluice_early_ns(clock, packet, parts) <=
		       packet->now_ns +
			       SLUICE_EARLY_OF_TIME *
				       sluice_later(SLUICE_EARLY_NS,
						    limit->quantum_ns /
							    SLUICE_EARLY_OF_QUANTUM);
}

/*
 * 1/sqrt(n) with 16 fraction bits, within 1 %: a guess by powers of two, right
 * within 2/3 and 4/3, then three Newton steps.
 */
SLUICE_INLINE __u32 sluice_inv_sqrt(__u32 n)
{
	__u64 guess = 42000;

#pragma clang loop unroll(full)
	for (int bits = 2; bits < 16; bits += 2)
		guess >>= n >> bits ? 1 : 0;
#pragma clang loop unroll(full)
	for (int step = 0; step < 3; step++)
		guess = guess * ((3ULL << 32) - n * guess * guess) >> 33;
	return guess;
}

/* RFC 8289 section 5.5: on where the last time ended, if that is not long ago. */
SLUICE_INLINE void
sluice_begin_signalling(struct sluice_flow *flow, __u64 now_ns, __u64 interval_ns)
{
	_Bool recent = now_ns < flow->signal_ns + 16 * interval_ns;

	flow->signalling = 1;
	flow->signals = recent && flow->signals > 2 ? flow->signals - 2 : 1;
	flow->signal_ns = now_ns;
}

/*
 * CoDel (RFC 8289) at enqueue, where the sojourn is known already. above: this
 * packet's sojourn is above the target; over: the flow has more than its share.
 * Who is above but not over is left alone, and so is its state.
 */
SLUICE_INLINE _Bool sluice_codel(struct sluice_flow *flow, _Bool above, _Bool over,
				 const struct sluice_packet *packet, __u64 target_ns)
{
	__u64 interval_ns = target_ns * SLUICE_INTERVAL_TARGETS;

	if (!above) {
		flow->above_ns = 0;
		flow->signalling = 0;
		return 0;
	}
	if (!flow->above_ns)
		flow->above_ns = packet->now_ns + interval_ns;
	if (!over || packet->now_ns < flow->above_ns)
		return 0;
	if (!flow->signalling) {
		sluice_begin_signalling(flow, packet->now_ns, interval_ns);
	} else {
		if (packet->now_ns < flow->signal_ns)
			return 0;
		flow->signals += flow->signals < 0xffff;
	}
	/* RFC 8289 section 5.4, control_law; a super-packet is many signals. */
	flow->signal_ns += (packet->segments | 1) *
			   (interval_ns * sluice_inv_sqrt(flow->signals) >> 16);
	return 1;
}

/*
 * The longest queue, in time: the horizon, or some quanta of each flow where
 * those take longer. The queue of a crowd is the shorter the larger it is, so
 * that buckets stay free. Without fq nothing is queued: it is credit.
 */
SLUICE_INLINE __u64 sluice_queue_ns(const struct sluice_limit *limit, __u32 flows)
{
	__u32 quanta = SLUICE_STANDING * (flows < SLUICE_CROWD ? flows : SLUICE_CROWD);
	__u64 queue_ns, bytes_ns;

	if (limit->mode == SLUICE_POLICED)
		return limit->horizon_ns;
	if (quanta < SLUICE_STANDING_LEAST)
		quanta = SLUICE_STANDING_LEAST;
	bytes_ns = limit->ns_per_byte >> SLUICE_NS_PER_BYTE_SHIFT
						 << SLUICE_STANDING_BYTES_LOG2;
	queue_ns = sluice_earlier(quanta * limit->quantum_ns, bytes_ns);
	queue_ns = sluice_earlier(queue_ns, SLUICE_STANDING_NS);
	queue_ns = sluice_later(queue_ns, limit->horizon_ns);
	if (flows > SLUICE_CROWD)
		queue_ns = queue_ns * SLUICE_CROWD / flows * SLUICE_CROWD / flows;
	return sluice_later(queue_ns, limit->quantum_ns);
}

/*
 * A flow that has no more than its share finds a bit more room, and twice that
 * if it has nothing queued, or a queue that others keep full would keep it out
 * for ever.
 */
SLUICE_INLINE __u64 sluice_room_ns(const struct sluice_limit *limit, __u64 queue_ns,
				   _Bool over, _Bool is_new)
{
	if (over || limit->mode == SLUICE_POLICED)
		return queue_ns;
	return queue_ns + queue_ns / SLUICE_LAST_ROOM / (is_new ? 1 : 2);
}

/*
 * The line is free and nothing waits for its turn on it: a packet leaves at once,
 * and whose it is makes no difference.
 */
SLUICE_INLINE _Bool sluice_is_idle(const struct sluice_limit *limit,
				   const struct sluice_clock *clock, __u64 now_ns)
{
	return sluice_line_ns(clock->next_ns, now_ns, limit) <= now_ns &&
	       clock->last_ns <= now_ns;
}

/* A flow or source that was last queued before an idle line owes nothing, and no queue of it stands. */
SLUICE_INLINE void
sluice_forgive(const struct sluice_clock *clock, struct sluice_flow *flow, __u64 now_ns)
{
	if (flow->departure_ns >= clock->idle_ns)
		return;
	flow->share_ns = sluice_earlier(flow->share_ns, now_ns);
	flow->above_ns = 0;
	flow->signalling = 0;
}

SLUICE_INLINE __u32 sluice_at_least_one(__u32 queued, __u32 active)
{
	return queued > active ? queued : active + !active;
}

/* Whoever queues is counted once in each round, and so are a source's flows. */
SLUICE_INLINE void sluice_count(struct sluice_clock *clock, struct sluice_flow *flow,
				struct sluice_flow *source)
{
	__u16 round = clock->round;

	if (source && source->round != round) {
		source->round = round;
		source->active = sluice_sharing(source->queued, source->active);
		source->queued = 0;
		clock->queued_sources++;
	}
	if (flow->round == round)
		return;
	flow->round = round;
	/* Else what it was shared in long ago would be this round's number again. */
	if ((__u8)(round - flow->shared) > SLUICE_SHARED_ROUNDS)
		flow->shared = round - SLUICE_SHARED_ROUNDS - 1;
	clock->queued++;
	if (source)
		source->queued++;
}

/*
 * Whose turn it is. A sparse flow's packet leaves now. All others queue for the
 * line, and who has had more than its share queues behind it, so that bulk
 * flows share equally, or sources where they are many. Clocks of flows only
 * grow and departures are bounded by the line's, so no flow is ever reordered.
 */
SLUICE_INLINE struct sluice_turn
sluice_decide(const struct sluice_limit *limit, struct sluice_clock *clock,
	      struct sluice_flow *flow, struct sluice_flow *source,
	      const struct sluice_packet *packet)
{
	__u64 now_ns = packet->now_ns, quantum_ns, standing_ns, queue_ns, room_ns;
	__u64 wait_ns, share_ns, debt_ns;
	__u64 line_ns = sluice_later(sluice_line_ns(clock->next_ns, now_ns, limit),
				     packet->node_ns);
	_Bool above, over, is_new;
	struct sluice_turn turn = {};

	if (now_ns >= clock->round_ns)
		sluice_begin_round(clock, line_ns, now_ns);
	sluice_forgive(clock, flow, now_ns);
	if (source)
		sluice_forgive(clock, source, now_ns);
	turn.flows = sluice_at_least_one(clock->queued, clock->active);
	turn.parts = turn.flows;
	if (source) {
		turn.sources = sluice_at_least_one(clock->queued_sources, clock->sources);
		turn.parts = sluice_at_least_one(source->queued, source->active);
		turn.parts *= turn.sources;
	}
	quantum_ns = limit->quantum_ns * turn.parts;
	turn.share_ns = sluice_later(flow->share_ns, sluice_before(now_ns, quantum_ns));
	if (source)
		turn.source_ns = sluice_later(source->share_ns,
					      sluice_before(now_ns, quantum_ns));
	turn.departure_ns = sluice_later(now_ns, flow->departure_ns);
	/* Nothing else waits for an idle line: no share to keep to. */
	if (line_ns <= now_ns) {
		turn.share_ns = sluice_earlier(turn.share_ns, turn.departure_ns);
		turn.source_ns = sluice_earlier(turn.source_ns, turn.departure_ns);
		if (turn.departure_ns == now_ns) {
			flow->above_ns = 0;
			flow->signalling = 0;
		}
		return turn;
	}
	queue_ns = sluice_queue_ns(limit, turn.flows);
	/* Nor to where no other flow queues. */
	debt_ns = line_ns;
	if (turn.flows > 1)
		debt_ns += sluice_later(queue_ns, limit->horizon_ns);
	turn.share_ns = sluice_earlier(
		turn.share_ns, sluice_is_guest(flow, packet) ? now_ns : debt_ns);
	turn.source_ns = sluice_earlier(turn.source_ns, debt_ns);
	turn.early = sluice_may_pass(clock, flow, packet, limit);
	if (turn.early)
		return turn;
	sluice_count(clock, flow, source);
	is_new = turn.departure_ns == now_ns;
	turn.departure_ns = sluice_later(turn.departure_ns, line_ns);
	share_ns = turn.share_ns;
	if (turn.sources > 1)
		share_ns = sluice_later(share_ns, turn.source_ns);
	over = share_ns > now_ns + quantum_ns;
	wait_ns = sluice_later(sluice_later(turn.departure_ns, share_ns),
			       packet->part_ns) -
		  now_ns;
	turn.departure_ns = sluice_later(
		turn.departure_ns, sluice_earlier(share_ns, line_ns + SLUICE_PUT_OFF_NS));
	standing_ns = SLUICE_STANDING * limit->quantum_ns * turn.flows;
	standing_ns = sluice_earlier(standing_ns, queue_ns - queue_ns / 8);
	above = wait_ns > limit->target_ns && wait_ns > standing_ns &&
		wait_ns > SLUICE_STANDING * packet->cost_ns;
	room_ns = sluice_room_ns(limit, queue_ns, over, is_new);
	if (wait_ns > room_ns)
		turn.action = SLUICE_REFUSE;
	else if (limit->target_ns &&
		 sluice_codel(flow, above, over, packet, limit->target_ns))
		turn.action = SLUICE_SIGNAL;
	return turn;
}

/* The flow's side of a packet that is sent; the line's own clock is the caller's. */
SLUICE_INLINE void
sluice_take(const struct sluice_limit *limit, struct sluice_clock *clock,
	    struct sluice_flow *flow, struct sluice_flow *source,
	    const struct sluice_packet *packet, const struct sluice_turn *turn)
{
	__u64 credit_ns = 2 * limit->quantum_ns * turn->flows;

	flow->departure_ns = turn->departure_ns;
	if (!sluice_is_guest(flow, packet)) {
		flow->share_ns = turn->share_ns + packet->cost_ns * turn->parts;
		flow->sparse_ns = 2 * packet->cost_ns * turn->flows +
				  sluice_later(flow->sparse_ns,
					       sluice_before(packet->now_ns, credit_ns));
	}
	if (source) {
		source->share_ns = turn->source_ns + packet->cost_ns * turn->sources;
		source->departure_ns =
			sluice_later(source->departure_ns, turn->departure_ns);
	}
	if (turn->early)
		clock->early_ns = sluice_early_ns(clock, packet, 1);
	clock->last_ns = sluice_later(clock->last_ns, turn->departure_ns);
}

static const __u64 sluice_delay_bounds_ns[] = { SLUICE_DELAY_BOUNDS_NS };

SLUICE_INLINE _Bool sluice_is_delayed(__u64 wait_ns)
{
	return wait_ns > sluice_delay_bounds_ns[0];
}

/* How many of the bounds of sluice_delays a wait is longer than. */
SLUICE_INLINE __u32 sluice_bounds_passed(__u64 wait_ns)
{
	__u32 passed = 0;

#pragma clang loop unroll(full)
	for (int bound = 0; bound < SLUICE_DELAYS; bound++)
		passed += wait_ns > sluice_delay_bounds_ns[bound];
	return passed;
}

/*
 * The later of our departure and the sender's own (TCP pacing, SO_TXTIME).
 * A stamp beyond the horizon is not a departure time (another clock, or a pod
 * that wants to be dropped by a later fq): it counts as now.
 */
SLUICE_INLINE __u64 sluice_stamp(__u64 departure_ns, __u64 own_ns, __u64 now_ns,
				 const struct sluice_limit *limit)
{
	if (own_ns > now_ns + limit->horizon_ns)
		return departure_ns;
	return own_ns > departure_ns ? own_ns : departure_ns;
}

#endif
