# cni.mode = "standalone": aws-node must not run on these nodes. It tolerates every taint; what
# keeps it off is a node affinity, here on the label sluice.dev/network=standalone, which nodes must
# have from their registration on.
resource "aws_eks_addon" "vpc_cni" {
  cluster_name                = var.cluster_name
  addon_name                  = "vpc-cni"
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  configuration_values = jsonencode({
    "affinity" : {
      "nodeAffinity" : {
        "requiredDuringSchedulingIgnoredDuringExecution" : {
          "nodeSelectorTerms" : [
            {
              "matchExpressions" : [
                {
                  "key" : "kubernetes.io/os",
                  "operator" : "In",
                  "values" : [
                    "linux"
                  ]
                },
                {
                  "key" : "kubernetes.io/arch",
                  "operator" : "In",
                  "values" : [
                    "amd64",
                    "arm64"
                  ]
                },
                {
                  "key" : "eks.amazonaws.com/compute-type",
                  "operator" : "NotIn",
                  "values" : [
                    "fargate",
                    "hybrid",
                    "auto"
                  ]
                },
                {
                  "key" : "sluice.dev/network",
                  "operator" : "NotIn",
                  "values" : [
                    "standalone"
                  ]
                }
              ]
            }
          ]
        }
      }
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

  # A launch template with a network interface has its security groups there, and nowhere else.
  network_interfaces {
    device_index      = 0
    ipv4_prefix_count = 4
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

[settings.sluice.cni]
mode = "standalone"

[settings.sluice.max-pods]
value = 58
--SLUICE--
EOT
  )
}
