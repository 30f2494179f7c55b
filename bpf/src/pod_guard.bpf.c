// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The ingress guard as a tcx link, which has no classid: the pod's slot is known
 * by the device and its network namespace, which only the kernel's own types
 * tell. An object of its own, so that a kernel which cannot load this one (it has
 * no BTF) loads the others all the same.
 */
#include "police.h"

/* The few fields of the kernel's own that name a pod's end. */
struct ns_common {
	__u32 inum;
} __attribute__((preserve_access_index));

struct net {
	struct ns_common ns;
} __attribute__((preserve_access_index));

struct net_device {
	int ifindex;
	struct {
		struct net *net;
	} nd_net;
} __attribute__((preserve_access_index));

struct sk_buff {
	struct net_device *dev;
} __attribute__((preserve_access_index));

/* From 6.2 on; every kernel with tcx has it. */
extern void *bpf_cast_to_kern_ctx(void *context) __ksym __weak;

/* Lets pass what the shaper has charged; polices the rest. */
SEC("tc")
int ingress_guard_tcx(struct __sk_buff *skb)
{
	struct net_device *device;
	struct sluice_pod_end end = {};
	struct net *net;
	__u32 *slot;

	/* 6.1 has neither this nor tcx. */
	if (!bpf_ksym_exists(bpf_cast_to_kern_ctx))
		return TC_ACT_UNSPEC;
	device = ((struct sk_buff *)bpf_cast_to_kern_ctx(skb))->dev;
	if (!device)
		return TC_ACT_UNSPEC;
	net = device->nd_net.net;
	if (!net)
		return TC_ACT_UNSPEC;
	end.netns = net->ns.inum;
	end.ifindex = device->ifindex;
	if (was_shaped_for(skb, skb->tc_index, (__u64)end.netns << 32 | end.ifindex))
		return TC_ACT_UNSPEC;
	slot = bpf_map_lookup_elem(&pod_ends, &end);
	/* Not a pod of ours: passes. */
	if (!slot)
		return TC_ACT_UNSPEC;
	return guard_entry(skb, skb->tc_index,
			   *slot * SLUICE_DIRECTIONS + SLUICE_INGRESS);
}

char _license[] SEC("license") = "GPL";
