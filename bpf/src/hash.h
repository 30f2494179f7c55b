/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which packets are one flow, where the kernel has not said so: those that it
 * would put together as well (net/core/flow_dissector.c), at a fraction of the
 * cost. What is not plain TCP or UDP is left to the kernel. Keyed, so that none
 * who sends can aim at another's bucket. Compiled for the host as well
 * (tests/hash.rs).
 */
#ifndef SLUICE_HASH_H
#define SLUICE_HASH_H

#include <linux/types.h>

#define SLUICE_HASH static inline __attribute__((always_inline))

/* So much of a header is looked at: to the end of the ports. */
#define SLUICE_IPV4_BYTES 24
#define SLUICE_IPV6_BYTES 44

SLUICE_HASH _Bool sluice_has_ports(__u8 protocol)
{
	return protocol == 6 || protocol == 17;
}

SLUICE_HASH __u64 sluice_mix(__u64 hash, __u64 word, __u64 key)
{
	hash = (hash ^ word) * (key | 1);
	return hash ^ hash >> 32;
}

/* Of a header without options, and no fragment; else 0. */
SLUICE_HASH __u32 sluice_ipv4_hash(const void *header, __u64 key)
{
	const __u8 *byte = header;
	const __u32 *word = header;
	__u64 hash;

	if (byte[0] != 0x45 || !sluice_has_ports(byte[9]) || byte[6] & 0x3f || byte[7])
		return 0;
	hash = sluice_mix(key, (__u64)word[3] << 32 | word[4], key);
	return sluice_mix(hash, (__u64)byte[9] << 32 | word[5], key);
}

/* Where the ports follow the header at once; else 0. */
SLUICE_HASH __u32 sluice_ipv6_hash(const void *header, __u64 key)
{
	const __u8 *byte = header;
	const __u32 *word = header;
	__u64 hash = key;

	if (!sluice_has_ports(byte[6]))
		return 0;
	for (int pair = 2; pair < 10; pair += 2)
		hash = sluice_mix(hash, (__u64)word[pair] << 32 | word[pair + 1], key);
	return sluice_mix(hash, (__u64)byte[6] << 32 | word[10], key);
}

#endif
