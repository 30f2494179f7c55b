/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the BPF programs and user space agree on. Fixed widths, explicit
 * padding, no other include than the integer types. Changing anything here
 * changes the ABI: raise SLUICE_ABI, which names the pin directory.
 */
#ifndef SLUICE_CONTRACT_H
#define SLUICE_CONTRACT_H

#include <linux/types.h>

#define SLUICE_ABI 1

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

enum sluice_direction {
	SLUICE_EGRESS = 0,	/* the pod sends */
	SLUICE_INGRESS = 1,	/* the pod receives */
	SLUICE_DIRECTIONS = 2,
};

enum sluice_mode {
	SLUICE_PACED = 0,	/* an fq below releases at the stamped time */
	SLUICE_POLICED = 1,	/* no fq below: what is too early is dropped */
};

/* Written by user space, read by the programs. */
struct sluice_limit {
	__u64 ns_per_byte;	/* fixed point; 0: no limit */
	__u64 burst_ns;		/* credit an idle pod keeps */
	__u64 horizon_ns;	/* a departure further ahead is a drop */
	__u32 mode;		/* enum sluice_mode */
	__u32 pad;
};

/* Running state, written by the programs; one cache line for each. */
struct sluice_clock {
	__u64 next_ns;		/* CLOCK_MONOTONIC; when the line is free again */
	__u64 pad[7];
};

/* Written by the programs, one copy for each CPU. Bytes are wire_len. */
struct sluice_counters {
	__u64 sent_packets;
	__u64 sent_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
};

#endif
