/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the BPF programs and user space agree on. Fixed widths, explicit
 * padding, no other include than the integer types. Changing anything here
 * changes the ABI: raise SLUICE_ABI, which names the pin directory.
 */
#ifndef SLUICE_CONTRACT_H
#define SLUICE_CONTRACT_H

#include <linux/types.h>

#define SLUICE_ABI 2

/*
 * Slots, one for each pod interface. tc_classid carries the slot in 16 bits;
 * slot 0 is never given to a pod (a filter without classid reads 0).
 */
#define SLUICE_SLOTS 1024

/*
 * Fixed point of ns_per_byte. 22 bits keep 400 Gbit/s (0.02 ns per byte)
 * exact to 1e-5, and 1 kbit/s (8e6 ns) times 512 KiB still fits in 64 bits.
 */
#define SLUICE_NS_PER_BYTE_SHIFT 22

/*
 * Class of our root qdiscs whose leaf takes no packet at all. What is dropped is
 * sent there (TC_ACT_OK), and the sender hears of it as of a full queue, which
 * TC_ACT_SHOT on a root qdisc does not tell (sch_prio.c, prio_enqueue).
 */
#define SLUICE_DROP_CLASS 2

/* What an entry of every map is for: index = slot * 2 + this. */
enum sluice_direction {
	SLUICE_EGRESS = 0,  /* the pod sends */
	SLUICE_INGRESS = 1, /* the pod receives */
	SLUICE_DIRECTIONS = 2,
};

enum sluice_mode {
	SLUICE_PACED = 0,   /* an fq below releases at the stamped time */
	SLUICE_POLICED = 1, /* no fq below: what is too early is dropped */
};

/* Written by user space, read by the programs; one cache line. */
struct sluice_limit {
	__u64 ns_per_byte; /* fixed point; 0: no limit */
	__u64 burst_ns;    /* credit an idle pod keeps */
	__u64 quantum_ns;  /* cost of what a flow may send at once */
	__u64 horizon_ns;  /* a departure further ahead is a drop */
	__u64 target_ns;   /* sojourn that a queue may keep; 0: no AQM */
	__u32 mode;        /* enum sluice_mode */
	__u32 ecn;         /* 1: mark what can be marked instead of dropping */
	__u32 weight;      /* of its part of the node's line; 0: takes no part */
	__u32 node_only;   /* 1: not the pod's own limit, only the node's capacity */
	__u64 floor_ns_per_byte; /* at least this of the node's line, of whose own it is the sum; 0: none */
};

/*
 * Running state of one direction of one pod, written by the programs; one
 * cache line. Only next_ns holds the limit, and only it is atomic: two CPUs
 * that race for the rest misjudge a packet's turn, never the pod's rate.
 */
struct sluice_clock {
	__u64 next_ns;  /* CLOCK_MONOTONIC; when the line is free again */
	__u64 round_ns; /* end of the round: what its start found queued has left */
	__u64 early_ns; /* when what left before its turn will have been made up for */
	__u64 earlier_ns;     /* the same at the start of the round */
	__u64 last_ns;        /* the latest departure of what had a turn */
	__u64 idle_ns;        /* when the line was last found idle */
	__u32 queued;         /* flows that had to queue in this round */
	__u32 active;         /* flows that share the line, from the rounds before */
	__u32 round;          /* number of the round */
	__u16 queued_sources; /* as queued and active, for the sources of a crowd */
	__u16 sources;
};

/*
 * Flows of one direction of one pod, in sets of SLUICE_WAYS buckets: a flow
 * takes one of its two sets that has nothing queued, so a sparse flow rarely
 * meets a bulk one, whose guest it is then. The last SLUICE_SOURCES
 * buckets are for sources (where the other end is), which share the line where
 * many flows queue. The table is made when the slot is first used and stays with
 * it; a new pod finds it empty.
 */
#define SLUICE_FLOWS 256
#define SLUICE_SOURCES 32
#define SLUICE_WAYS 4

struct sluice_flow {
	__u64 share_ns;     /* when its share of the line is free again */
	__u64 departure_ns; /* of its last packet */
	__u64 sparse_ns;    /* from when on it counts as sparse */
	__u64 above_ns;     /* CoDel: when it may begin to signal; 0: below target */
	union {
		__u64 signal_ns; /* CoDel: when the next signal is due */
		__u64 active;    /* of a source: as the clock's, its flows */
	};
	union {
		__u16 signals; /* CoDel: signals since it began */
		__u16 queued;  /* of a source: as the clock's, its flows */
	};
	__u8 signalling; /* CoDel: 1 while it does */
	__u8 shared;     /* the last round in which more than one flow had it */
	__u16 tag;       /* which flow this is */
	__u16 round;     /* the last round in which it queued */
};

struct sluice_flows {
	struct sluice_flow flow[SLUICE_FLOWS];
};

/* Written by the programs, one copy for each CPU. Bytes are wire_len. */
struct sluice_counters {
	__u64 sent_packets;
	__u64 sent_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
	__u64 aqm_packets;     /* of the dropped: by the AQM */
	__u64 unready_packets; /* of the dropped: no table of flows; the others: horizon */
	__u64 marked_packets;  /* sent with CE */
	__u64 sojourn_ns;      /* sum over what was sent */
	__u64 last_aqm_ns;     /* CLOCK_MONOTONIC; last drop by the AQM, 0: none */
	__u64 last_horizon_ns; /* and by the horizon */
	__u64 node_bytes;      /* sent by the node's line, where pods share that */
};

/*
 * What the shaper has let pass and what the guard has seen of it, in bytes as they
 * are charged: the guard lets nothing pass that was not charged before. What was
 * charged and never came (a queue that was removed) is forgotten once the shaper has
 * worked on for one or two times SLUICE_ACCOUNT_NS, longer than any queue of ours. One
 * cache line; written by the programs, but for `end`.
 */
#define SLUICE_ACCOUNT_NS 2000000000ULL

struct sluice_account {
	__u64 charged_bytes;
	__u64 passed_bytes;
	__u64 old_bytes; /* charged_bytes when old_ns was set */
	__u64 old_ns;    /* when what was charged before old_bytes is forgotten */
	__u64 end; /* where the guard is: netns << 32 | ifindex, netns 0 on the host */
	__u64 pad[3];
};

/*
 * Bounds in ns of sluice_delays, dense between the usual latency target and the
 * horizon. Most packets wait less than the first; they are what is left of
 * sent_packets, so that they cost nothing.
 */
#define SLUICE_DELAYS 8
#define SLUICE_DELAY_BOUNDS_NS \
	250000, 1000000, 4000000, 8000000, 16000000, 32000000, 64000000, 256000000

/*
 * Sent packets that had to wait for longer than this bound and not for longer
 * than the next. Written by the programs, shared by all CPUs; one cache line.
 */
struct sluice_delays {
	__u64 above[SLUICE_DELAYS];
};

/*
 * A pod's part of the node's line. Pods share that by weight, as flows share the line
 * of a pod. A pod that used less than its part in a round is light: it keeps what it
 * used, and the others share the rest. Written by the programs; one cache line.
 */
struct sluice_share {
	__u64 share_ns;     /* when its part of the line is free again */
	__u64 departure_ns; /* of its last packet, as far as the node is concerned */
	__u64 used_ns;      /* in its round; of the node: by light pods in this round */
	__u64 span_ns; /* of the node: how long the round before lasted; 0: it rested */
	__u64 began_ns; /* of the node: when this round began */
	__u32 round;    /* the last in which it sent */
	__u32 light;    /* 1: it is; of the node: weights of light pods in this round */
	__u64 waited_ns; /* sum of what packets waited longer than the pod's limit asks for */
	__u64 paths; /* of the node: the number of the present routes or uplinks */
};

/*
 * One direction of one pod: all that each packet needs, a cache line for each
 * writer. User space writes a limit in place (the map can be mapped), so that
 * this never resets a clock.
 */
struct sluice_line {
	struct sluice_limit limit;
	struct sluice_clock clock;
	struct sluice_account account;
	struct sluice_delays delays;
	struct sluice_share share;
};

/*
 * Node share: behind the lines of all slots are the node's own. Their limit is the
 * node's capacity, and what `queued` and `active` count are weights.
 */
#define SLUICE_NODE SLUICE_SLOTS

/* A pod's own end of its veth pair: an index alone says nothing across namespaces. */
struct sluice_pod_end {
	__u32 netns;   /* inode of the network namespace */
	__u32 ifindex; /* inside that */
};

/* Where a route leads to. */
enum sluice_where {
	SLUICE_LEAVES = 0, /* out by an uplink, or that is not known */
	SLUICE_STAYS = 1,
	SLUICE_OWN = 2, /* the node itself: stays, but for what Services translate */
};

/* Of an address, in network order; IPv4 is ::ffff:a.b.c.d, and so are its bits. */
struct sluice_prefix {
	__u32 bits;
	__u32 address[4];
};

#endif
