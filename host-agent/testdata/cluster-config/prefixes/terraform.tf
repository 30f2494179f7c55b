# max-pods is fixed at boot, and aws-node reads it once: after changing prefix delegation, replace
# existing nodes.
# Each prefix is a free, aligned /28 of the node's subnet; a subnet CIDR reservation of type prefix
# keeps some free.
resource "aws_eks_addon" "vpc_cni" {
  cluster_name                = var.cluster_name
  addon_name                  = "vpc-cni"
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  configuration_values = jsonencode({
    env = {
      # prefix-delegation.enabled = true
      ENABLE_PREFIX_DELEGATION = "true"
      # prefix-delegation.warm-prefix-target = 1
      WARM_PREFIX_TARGET = "1"
      # prefix-delegation.warm-ip-target = 0, which means not set; written so that an old value cannot override WARM_PREFIX_TARGET
      WARM_IP_TARGET = "0"
      # prefix-delegation.minimum-ip-target = 0, which means not set; written so that an old value cannot override WARM_PREFIX_TARGET
      MINIMUM_IP_TARGET = "0"
      # max-pods.custom-networking = false
      AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG = "false"
      # max-pods.pod-security-groups = false
      ENABLE_POD_ENI = "false"
      # cni.upstream-bandwidth = "replace": Sluice limits pods instead
      ENABLE_BANDWIDTH_PLUGIN = "false"
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
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="SLUICE"

--SLUICE
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: "${var.cluster_name}"
    apiServerEndpoint: "${data.aws_eks_cluster.sluice.endpoint}"
    certificateAuthority: "${data.aws_eks_cluster.sluice.certificate_authority[0].data}"
    cidr: "${data.aws_eks_cluster.sluice.kubernetes_network_config[0].service_ipv4_cidr}"
--SLUICE
Content-Type: application/toml

[settings.sluice]
version = 1

[settings.sluice.bandwidth]
default-egress = "500Mbit"
default-ingress = "500Mbit"

[settings.sluice.prefix-delegation]
enabled = true
--SLUICE--
EOT
  )
}
