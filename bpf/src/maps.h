/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map. Index = slot * 3 + direction. Arrays, because a slot number is
 * all that a program knows of a pod, and a look-up then costs a bounds check.
 * Configuration, running state and counters are apart, so that changing a
 * limit never resets a clock (Cilium's bandwidth manager and Calico both had
 * that lost update).
 */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

#include "contract.h"

#define SLUICE_ENTRIES (SLUICE_SLOTS * SLUICE_DIRECTIONS)

/* Written by the CNI plugin and the agent, read by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__type(value, struct sluice_limit);
} limits SEC(".maps");

/* Written by the programs; user space only zeroes an entry for a new pod. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__type(value, struct sluice_clock);
} clocks SEC(".maps");

/* Written by the programs, read by status; zeroed for a new pod. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__type(value, struct sluice_counters);
} counters SEC(".maps");

/* Written by the programs, read by status; zeroed for a new pod. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_ENTRIES);
	__type(key, __u32);
	__type(value, struct sluice_delays);
} delays SEC(".maps");

/*
 * A table of flows for each entry that is paced by flow; made by user space
 * when a pod is attached, because 12 KiB for everything that might be used
 * would be 24 MiB. What comes to an entry without one is dropped.
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
 * Host interface index → slot, for the guard: a tcx link has no classid.
 * Written by user space, read by the guard. Interfaces of one pod may share a
 * slot, so there is room for more of them than there are slots.
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
 * What reached a pod without passing its shaper, by slot. Written by the ingress
 * guard, read by status; zeroed for a new pod.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_SLOTS);
	__type(key, __u32);
	__type(value, struct sluice_counters);
} bypassed SEC(".maps");

#endif
