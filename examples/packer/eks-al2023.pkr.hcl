# SPDX-License-Identifier: Apache-2.0
# An AMI for EKS nodes: Amazon's for AL2023, with Sluice's package in it. Nothing starts in the instance that builds, so
# nothing of its own user data is in the image.
#
#   packer init . && packer build -var package=sluice-0.1.0-1.x86_64.rpm -var sha256="$(…)" eks-al2023.pkr.hcl
#
# For Graviton: -var architecture=arm64 and the package that ends in aarch64.rpm.

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0"
    }
  }
}

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "kubernetes_version" {
  type    = string
  default = "1.33"
}

variable "architecture" {
  type    = string
  default = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture must be x86_64 or arm64."
  }
}

variable "package" {
  type        = string
  description = "The .rpm out of target/packages, or target/packages-aarch64 for arm64."
}

variable "sha256" {
  type        = string
  description = "Its line in SHA256SUMS."
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.sha256))
    error_message = "The digest must be 64 hexadecimal digits."
  }
}

variable "settings" {
  type        = string
  description = "A file of settings for every node of the image, below its user data."
  default     = "settings.toml"
}

data "amazon-parameterstore" "eks" {
  region = var.region
  name   = "/aws/service/eks/optimized-ami/${var.kubernetes_version}/amazon-linux-2023/${var.architecture}/standard/recommended/image_id"
}

source "amazon-ebs" "node" {
  region        = var.region
  source_ami    = data.amazon-parameterstore.eks.value
  instance_type = var.architecture == "arm64" ? "m7g.large" : "m6i.large"
  ssh_username  = "ec2-user"
  ami_name      = "eks-node-${var.kubernetes_version}-sluice-${var.architecture}-${formatdate("YYYYMMDDhhmm", timestamp())}"
  imds_support  = "v2.0"

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  tags = {
    KubernetesVersion = var.kubernetes_version
    SluicePackage     = basename(var.package)
  }
}

build {
  sources = ["source.amazon-ebs.node"]

  provisioner "file" {
    source      = var.package
    destination = "/tmp/sluice.rpm"
  }

  provisioner "file" {
    source      = var.settings
    destination = "/tmp/settings.toml"
  }

  provisioner "shell" {
    inline_shebang = "/bin/bash -euo pipefail"
    inline = [
      "echo '${var.sha256}  /tmp/sluice.rpm' | sha256sum --check",
      "sudo dnf install --assumeyes /tmp/sluice.rpm",
      "sluice check --require-settings /tmp/settings.toml",
      "sudo install -D -m 644 /tmp/settings.toml /etc/sluice/settings.toml",
      "systemctl is-enabled sluice-boot.service sluice.service",
      # 2: the first boot of a node has something to write. 0 would be a node that has booted, anything else a plan with a fault.
      "sudo sluice plan --detailed-exitcode || test $? -eq 2",
      "test ! -e /run/sluice && test ! -e /var/lib/sluice",
      "rm /tmp/sluice.rpm /tmp/settings.toml",
    ]
  }
}
