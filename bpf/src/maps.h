/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map. Index = slot * 2 + direction. Arrays, because a slot number is
 * all that a program knows of a pod, and a look-up then costs a bounds check.
 */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

#include "contract.h"

#define SLUICE_ENTRIES (SLUICE_SLOTS * SLUICE_DIRECTIONS)

/*
 * Limits are written by the CNI plugin and the agent, in place; the rest by the
 * programs. User space zeroes an entry for a new pod.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES + SLUICE_DIRECTIONS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sluice_line);
} lines SEC(".maps");

/* Written by the programs, read by status; zeroed for a new pod. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__type(value, struct sluice_counters);
} counters SEC(".maps");

/*
 * A table of flows for each entry that is paced by flow; made by user space
 * when a pod is attached, because 12 KiB for everything that might be used
 * would be 24 MiB. What would have to
 * wait in an entry without one is dropped.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		/* No types: 6.1 would refuse a table that has none (bpf_map_meta_equal). */
		__uint(key_size, sizeof(__u32));
		__uint(value_size, sizeof(struct sluice_flows));
	});
} flows SEC(".maps");

/*
 * Host interface index → slot, for what the guard does not know by the packet
 * (a tcx link has no classid). Written by user space, read by the guard.
 * Interfaces of one pod may share a slot, so there is room for more of them than
 * there are slots.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * SLUICE_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} guards SEC(".maps");

/*
 * The pod's own end → slot, for the ingress guard on tcx. Written by user space
 * when it attaches that guard, read by it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * SLUICE_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sluice_pod_end);
	__type(value, __u32);
} pod_ends SEC(".maps");

/*
 * What came to a guard without having passed the shaper: past the pod's own, or
 * into the pod past the host's end. Written by the guards, read by status; zeroed
 * for a new pod.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__type(value, struct sluice_counters);
} unshaped SEC(".maps");

/*
 * Node share: where a packet goes to, by the node's routes (enum sluice_where),
 * and the devices that the node's line is made of. Written by the agent.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16 * SLUICE_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sluice_prefix);
	__type(value, __u32);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_SLOTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} uplinks SEC(".maps");

/*
 * What those two said of late, or each packet would look it up again: of IPv4
 * destinations, and of devices. An entry is what it is about << 32 | the number of
 * the routes or uplinks << 2 | SLUICE_KNOWN | whether it uses the node's line. Whoever
 * writes it found that in a newer map than that number's, or in the same.
 */
#define SLUICE_RECENT_LOG2 9
#define SLUICE_KNOWN 2

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_DIRECTIONS << SLUICE_RECENT_LOG2);
	__type(key, __u32);
	__type(value, __u64);
} recent SEC(".maps");

#endif
