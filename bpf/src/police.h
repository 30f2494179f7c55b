/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What all programs share: the proof that a packet has passed a shaper, the one
 * step of a clock, counting, and policing. No decision by flow.
 */
#ifndef SLUICE_POLICE_H
#define SLUICE_POLICE_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "share.h"

/*
 * Of this boot, set for each load (proof.rs). proof_base plus its entry's index is
 * what a packet that was shaped carries in tc_index: never 0, and no more than 16
 * bits. It says where to look; that a packet was charged, the account says.
 */
const volatile __u32 proof_base = 1;
const volatile __u64 hash_key = 0x9e3779b97f4a7c15;

static __always_inline __u32 proof_of(__u32 index)
{
	return proof_base + index;
}

#define CLOCK_TRIES 4

/*
 * The one atomic step of each packet; gives when the line was free for it. Who
 * loses CLOCK_TRIES races knows that another CPU has just moved the clock, so
 * it is not idle and adding is right: the sum stays exact.
 */
static __always_inline __u64 charge(struct sluice_clock *clock, __u64 now_ns,
				    __u64 cost_ns, const struct sluice_limit *limit)
{
#pragma unroll
	for (int i = 0; i < CLOCK_TRIES; i++) {
		__u64 seen_ns = *(volatile __u64 *)&clock->next_ns;
		__u64 line_ns = sluice_line_ns(seen_ns, now_ns, limit);

		if (__sync_val_compare_and_swap(&clock->next_ns, seen_ns,
						line_ns + cost_ns) == seen_ns)
			return line_ns;
	}
	return __sync_fetch_and_add(&clock->next_ns, cost_ns);
}

static __always_inline int drop(struct sluice_counters *count, __u32 wire_len)
{
	count->dropped_packets++;
	count->dropped_bytes += wire_len;
	return TC_ACT_SHOT;
}

static __always_inline void sent(struct sluice_counters *count, __u32 wire_len)
{
	count->sent_packets++;
	count->sent_bytes += wire_len;
}

/*
 * Charges a packet to the pod's line, or drops it if that is not free for so long
 * to come; gives whether the packet may pass.
 */
static __always_inline _Bool police(struct sluice_line *line,
				    struct sluice_counters *count, __u32 wire_len,
				    __u64 credit_ns)
{
	const struct sluice_limit *limit = &line->limit;
	__u64 now_ns, cost_ns;

	/* Not a pod with a limit: not ours, passes. */
	if (!count || !limit->ns_per_byte)
		return 1;
	now_ns = bpf_ktime_get_ns();
	cost_ns = sluice_cost_ns(limit, wire_len);
	if (sluice_line_ns(line->clock.next_ns, now_ns, limit) > now_ns + credit_ns) {
		count->last_horizon_ns = now_ns;
		drop(count, wire_len);
		return 0;
	}
	charge(&line->clock, now_ns, cost_ns, limit);
	sent(count, wire_len);
	return 1;
}

/* Takes a packet of this length from what was charged, if there is so much. */
static __always_inline _Bool settle(struct sluice_account *account, __u32 wire_len)
{
	__u64 passed = __sync_fetch_and_add(&account->passed_bytes, wire_len) + wire_len;

	if (passed <= *(volatile __u64 *)&account->charged_bytes)
		return 1;
	__sync_fetch_and_add(&account->passed_bytes, -(__u64)wire_len);
	return 0;
}

/*
 * Forgets what was charged long ago and never came. What the guard counts
 * meanwhile is of later charges, so nothing that is still queued is forgotten.
 */
static __always_inline void forget_lost(struct sluice_account *account, __u64 now_ns)
{
	__u64 passed = account->passed_bytes;

	if (now_ns < account->old_ns)
		return;
	if (passed < account->old_bytes)
		__sync_fetch_and_add(&account->passed_bytes, account->old_bytes - passed);
	account->old_bytes = account->charged_bytes;
	account->old_ns = now_ns + SLUICE_ACCOUNT_NS;
}

enum { IPV4_LENGTH_AT = 14, IPV4_PROTOCOL_AT = 14 + 9, IPV6_PROTOCOL_AT = 14 + 6 };
enum { TCP_LENGTH = 12, PROTOCOL_TCP = 6 };

/* What is charged for a packet that a guard sees, and what it carries. */
struct sluice_frame {
	__u32 wire_len;
	__u32 is_tcp;
};

/*
 * wire_len as the shaper has it: at ingress the kernel leaves out the MAC header
 * on every kernel, and on some the headers that each further segment of a
 * super-packet repeats (net/core/dev.c, sch_handle_ingress). Counted as
 * qdisc_pkt_len_init does, or less, where extension headers hide the transport's.
 */
static __always_inline struct sluice_frame frame_of(struct __sk_buff *skb)
{
	_Bool is_ipv6 = skb->protocol == __builtin_bswap16(0x86dd);
	__u32 transport = 14 + (is_ipv6 ? 40 : 20), segments = skb->gso_segs;
	struct sluice_frame frame = { .wire_len = skb->len };
	__u8 byte = 0;

	bpf_skb_load_bytes(skb, is_ipv6 ? IPV6_PROTOCOL_AT : IPV4_PROTOCOL_AT, &byte, 1);
	frame.is_tcp = byte == PROTOCOL_TCP;
	if (segments < 2)
		return frame;
	if (!is_ipv6 && !bpf_skb_load_bytes(skb, IPV4_LENGTH_AT, &byte, 1))
		transport = 14 + 4 * (byte & 15);
	byte = 0;
	if (frame.is_tcp)
		bpf_skb_load_bytes(skb, transport + TCP_LENGTH, &byte, 1);
	frame.wire_len +=
		(segments - 1) * (transport + (frame.is_tcp ? byte >> 4 << 2 : 8));
	return frame;
}

/*
 * TCP's least retransmission timeout: with less credit a policed connection gets
 * about half of the limit (11.3 of 20 Mbit/s with 100 ms, on 6.12). What does not
 * yield has no more than the shaper gives, so that it takes nothing from that.
 */
#define TCP_CREDIT_NS 200000000ULL

/*
 * For what has not passed the shaper: charges it to the pod's own line, and
 * polices it there. What reaches a pod that way is others' doing, and TCP needs
 * credit; what a pod sends that way has none but where its shaper would give it.
 */
static __always_inline int police_unshaped(__u32 index, const struct sluice_frame *frame)
{
	struct sluice_line *line = bpf_map_lookup_elem(&lines, &index);
	struct sluice_counters *count = bpf_map_lookup_elem(&unshaped, &index);
	__u64 credit_ns = 0;

	if (!line)
		return TC_ACT_UNSPEC;
	if (index % SLUICE_DIRECTIONS == SLUICE_INGRESS)
		credit_ns = sluice_later(line->limit.horizon_ns,
					 frame->is_tcp ? TCP_CREDIT_NS : 0);
	else if (line->limit.mode == SLUICE_POLICED)
		credit_ns = line->limit.horizon_ns;
	return police(line, count, frame->wire_len, credit_ns) ? TC_ACT_UNSPEC :
								 TC_ACT_SHOT;
}

/* Out of the way of the many packets that are not super-packets. */
__noinline int super_packet_len(struct __sk_buff *skb)
{
	return frame_of(skb).wire_len;
}

/* What a guard counts for a packet; for most its length says it. */
static __always_inline __u32 charged_len(struct __sk_buff *skb)
{
	return skb->gso_segs < 2 ? skb->len : super_packet_len(skb);
}

/* Whether the packet says that this entry's shaper has let it pass, and that is so. */
static __always_inline _Bool was_shaped(struct __sk_buff *skb, __u32 tc_index, __u32 index)
{
	struct sluice_line *line = bpf_map_lookup_elem(&lines, &index);

	return line && tc_index == proof_of(index) &&
	       settle(&line->account, charged_len(skb));
}

/* The same at the guard's own place, where the packet alone says which entry's. */
static __always_inline _Bool was_shaped_for(struct __sk_buff *skb, __u32 tc_index,
					    __u64 end)
{
	__u32 index = tc_index - proof_base;
	struct sluice_line *line = bpf_map_lookup_elem(&lines, &index);

	return line && line->account.end == end &&
	       settle(&line->account, charged_len(skb));
}

static __always_inline int guard_entry(struct __sk_buff *skb, __u32 tc_index, __u32 index)
{
	struct sluice_frame frame;

	if (was_shaped(skb, tc_index, index))
		return TC_ACT_UNSPEC;
	frame = frame_of(skb);
	return police_unshaped(index, &frame);
}

#endif
