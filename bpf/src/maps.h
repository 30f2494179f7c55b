/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map. Index = slot * 2 + direction. Arrays, because a slot number is
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

#endif
