# max-pods is fixed at boot, and aws-node reads it once: after changing prefix delegation, replace
# existing nodes.
# Each prefix is a free, aligned /28 of the node's subnet; a subnet CIDR reservation of type prefix
# keeps some free.
# cni.upstream-bandwidth = "keep": ENABLE_BANDWIDTH_PLUGIN stays as it is. true does not go together
# with network policy.
resource "aws_eks_addon" "vpc_cni" {
  cluster_name                = var.cluster_name
  addon_name                  = "vpc-cni"
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  configuration_values = jsonencode({
    env = {
      # prefix-delegation.enabled = true
      ENABLE_PREFIX_DELEGATION = "true"
      # prefix-delegation.warm-ip-target = 5: it overrides WARM_PREFIX_TARGET, whatever that is
      WARM_IP_TARGET = "5"
      # prefix-delegation.minimum-ip-target = 40
      MINIMUM_IP_TARGET = "40"
      # max-pods.custom-networking = true
      AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG = "true"
      # max-pods.custom-networking = true: an ENIConfig for each zone, named like it
      ENI_CONFIG_LABEL_DEF = "topology.kubernetes.io/zone"
      # max-pods.pod-security-groups = true
      ENABLE_POD_ENI = "true"
    }
  })
}

data "aws_eks_cluster" "sluice" {
  name = var.cluster_name
}

resource "aws_launch_template" "sluice" {
  name_prefix = "sluice-"
  image_id    = var.image_id

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  user_data = base64encode(<<EOT
[sluice]
version = 1

[[sluice.bandwidth.class]]
name = "batch"
namespaces = ["batch-*"]
egress = "100Mbit"

[sluice.cni]
upstream-bandwidth = "keep"

[sluice.prefix-delegation]
enabled = true
warm-ip-target = 5
minimum-ip-target = 40

[sluice.max-pods]
value = 58
custom-networking = true
pod-security-groups = true

[settings.kubernetes]
cluster-name = "${var.cluster_name}"
api-server = "${data.aws_eks_cluster.sluice.endpoint}"
cluster-certificate = "${data.aws_eks_cluster.sluice.certificate_authority[0].data}"
max-pods = 58
EOT
  )
}
