# max-pods is fixed at boot, and aws-node reads it once: after changing prefix delegation, replace
# existing nodes.
# Each prefix is a free, aligned /28 of the node's subnet; a subnet CIDR reservation of type prefix
# keeps some free.
# ENABLE_PREFIX_DELEGATION: prefix-delegation.enabled = true
# WARM_PREFIX_TARGET: prefix-delegation.warm-prefix-target = 1
# WARM_IP_TARGET: prefix-delegation.warm-ip-target = 0, which means not set; written so that an old
# value cannot override WARM_PREFIX_TARGET
# MINIMUM_IP_TARGET: prefix-delegation.minimum-ip-target = 0, which means not set; written so that
# an old value cannot override WARM_PREFIX_TARGET
# AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: max-pods.custom-networking = false
# ENABLE_POD_ENI: max-pods.pod-security-groups = false
# ENABLE_BANDWIDTH_PLUGIN: cni.upstream-bandwidth = "replace": Sluice limits pods instead
kubectl set env daemonset aws-node -n kube-system -c aws-node \
    ENABLE_PREFIX_DELEGATION=true \
    WARM_PREFIX_TARGET=1 \
    WARM_IP_TARGET=0 \
    MINIMUM_IP_TARGET=0 \
    AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=false \
    ENABLE_POD_ENI=false \
    ENABLE_BANDWIDTH_PLUGIN=false
# EKS has set, by the cluster's IP family: ENABLE_IPv4=true ENABLE_IPv6=false
