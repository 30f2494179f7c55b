# max-pods is fixed at boot, and aws-node reads it once: after changing prefix delegation, replace
# existing nodes.
# Each prefix is a free, aligned /28 of the node's subnet; a subnet CIDR reservation of type prefix
# keeps some free.
# cni.upstream-bandwidth = "keep": ENABLE_BANDWIDTH_PLUGIN stays as it is. true does not go together
# with network policy.
# ENABLE_PREFIX_DELEGATION: prefix-delegation.enabled = true
# WARM_IP_TARGET: prefix-delegation.warm-ip-target = 5: it overrides WARM_PREFIX_TARGET, whatever
# that is
# MINIMUM_IP_TARGET: prefix-delegation.minimum-ip-target = 40
# AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: max-pods.custom-networking = true
# ENI_CONFIG_LABEL_DEF: max-pods.custom-networking = true: an ENIConfig for each zone, named like it
# ENABLE_POD_ENI: max-pods.pod-security-groups = true
kubectl set env daemonset aws-node -n kube-system -c aws-node \
    ENABLE_PREFIX_DELEGATION=true \
    WARM_IP_TARGET=5 \
    MINIMUM_IP_TARGET=40 \
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true \
    ENI_CONFIG_LABEL_DEF=topology.kubernetes.io/zone \
    ENABLE_POD_ENI=true
# EKS has set, by the cluster's IP family: ENABLE_IPv4=true ENABLE_IPv6=false
