// SPDX-License-Identifier: Apache-2.0
//! What a machine is made of, as arguments of QEMU. The image has no shell: what a test needs done inside is a unit,
//! handed over in the firmware's strings as systemd reads them, and a program on a second disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::tools::{Tools, text};

/// The kind of device that the volume is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Virtio,
    /// As on EC2.
    Nvme,
}

/// What is no matter of most scenarios, and a sixth of what a boot has to emulate: units, and devices that are asked for
/// drivers a second time, because the root forgets what the initrd has found.
pub const NO_MATTER: &[&str] = &[
    "systemd.mask=containerd.service",
    "systemd.mask=systemd-logind.service",
    "systemd.mask=systemd-resolved.service",
    "systemd.mask=systemd-timesyncd.service",
    "systemd.mask=systemd-udev-trigger.service",
    "rd.systemd.mask=initrd-udevadm-cleanup-db.service",
];

/// As nodeadm has it: the kernel must be as kubelet requires, whose values the image has. No `maxPods`, no memory: they are
/// what `sluice boot` gives.
pub const KUBELET: &str = r#"{"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "protectKernelDefaults": true, "kubeReserved": {"cpu": "70m", "ephemeral-storage": "1Gi"}}"#;

/// Firmware that starts what its variables allow.
#[derive(Clone)]
pub struct SecureBoot {
    /// The template of them.
    pub variables: PathBuf,
    /// Disks that the firmware tries before the volume.
    pub first: Vec<PathBuf>,
}

/// One machine, before it is on.
#[derive(Clone)]
pub struct Machine {
    pub bus: Bus,
    /// Port of this host where IMDS is; without it nothing answers at its address.
    pub imds_port: Option<u16>,
    /// Port of what answers at 169.254.169.253, with files.
    pub files_port: Option<u16>,
    /// Verb of the probe that runs when the machine is up.
    pub probe: String,
    /// Name and text of credentials.
    pub credentials: Vec<(String, String)>,
    /// What the one that joins the node to the cluster has written for kubelet.
    pub kubelet: &'static str,
    /// Arguments of the kernel that keep from running what need not run.
    pub without: &'static [&'static str],
    /// If not, the firmware starts whatever there is, and the kernel takes arguments of the test.
    pub secure_boot: Option<SecureBoot>,
    /// Before the other machines, and with two processors instead of one, for what is measured inside.
    pub goes_first: bool,
}

impl Machine {
    pub fn new(probe: &str) -> Self {
        Self {
            bus: Bus::Virtio,
            imds_port: None,
            files_port: None,
            probe: probe.into(),
            credentials: Vec::new(),
            kubelet: KUBELET,
            without: &[],
            secure_boot: None,
            goes_first: false,
        }
    }

    pub fn credential(mut self, name: &str, text: &str) -> Self {
        self.credentials.push((name.into(), text.into()));
        self
    }

    pub fn command(&self, tools: &Tools, disk: &Path, variables: &Path, probe: &Path) -> Command {
        let mut command = tools.command("qemu-system-x86_64");
        if self.goes_first {
            let qemu = std::mem::replace(&mut command, Command::new("nice"));
            command.arg("--adjustment=-20").arg(qemu.get_program()).args(qemu.get_args());
        }
        let share = tools.path("usr/share");
        command.arg("-L").arg(share.join("qemu"));
        let processors = if self.goes_first { "2" } else { "1" };
        // qemu64: the fewer features, the less there is to emulate. No SATA and no SVM: no drivers for them.
        let (smm, code) = match &self.secure_boot {
            Some(_) => ("on", "OVMF/OVMF_CODE_4M.secboot.fd"),
            None => ("auto", "OVMF/OVMF_CODE_4M.fd"),
        };
        let board = format!("q35,sata=off,smbus=off,smm={smm}");
        command.args(["-accel", "tcg,tb-size=512", "-machine", &board, "-m", "1024"]);
        command.args(["-cpu", "qemu64,-svm"]);
        command.args(["-smp", processors]);
        command.args(
            "-nodefaults -no-user-config -display none -monitor none -serial stdio".split(' '),
        );
        command
            .args("-uuid 5d1c6f0e-3c5b-4a57-8f7e-1f0e5f2a9b11 -device virtio-rng-pci".split(' '));
        let firmware = text(&share.join(code)).to_owned();
        drive(&mut command, &format!("if=pflash,format=raw,unit=0,readonly=on,file={firmware}"));
        drive(&mut command, &format!("if=pflash,format=raw,unit=1,file={}", text(variables)));
        // A write that is done is this host's, which does not fail: `unsafe` spares waiting for its disk.
        drive(
            &mut command,
            &format!(
                "if=none,id=volume,format=qcow2,discard=unmap,cache=unsafe,file={}",
                text(disk)
            ),
        );
        let bus = match self.bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Nvme => "nvme",
        };
        let first = self.secure_boot.iter().flat_map(|secure| &secure.first);
        for (index, disk) in first.enumerate() {
            let file = text(disk);
            drive(
                &mut command,
                &format!("if=none,id=first{index},format=raw,readonly=on,file={file}"),
            );
            command
                .args(["-device", &format!("virtio-blk-pci,drive=first{index},bootindex={index}")]);
        }
        command.args(["-device", &format!("{bus},drive=volume,serial=volume,bootindex=9")]);
        drive(
            &mut command,
            &format!("if=none,id=probe,format=raw,readonly=on,file={}", text(probe)),
        );
        command.args(["-device", "virtio-blk-pci,drive=probe,serial=probe"]);
        command.args([
            "-netdev",
            &self.network(),
            "-device",
            "virtio-net-pci,netdev=link,romfile=",
        ]);
        self.add_strings(&mut command);
        if self.secure_boot.is_some() {
            // Only the firmware, in SMM, writes its variables.
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            command.args(["-global", "ICH9-LPC.disable_s3=1"]);
        } else {
            self.add_arguments(&mut command);
        }
        command
    }

    /// The guest reaches nothing but the two addresses.
    fn network(&self) -> String {
        let own = std::env::current_exe().unwrap_or_default();
        let servers = [("254", self.imds_port), ("253", self.files_port)];
        let forward = |(last, port): (&str, Option<u16>)| {
            port.map(|port| {
                format!(",guestfwd=tcp:169.254.169.{last}:80-cmd:{} relay {port}", own.display())
            })
        };
        let link = "user,id=link,net=169.254.169.0/24,dhcpstart=169.254.169.15,restrict=on";
        std::iter::once(link.to_owned()).chain(servers.into_iter().filter_map(forward)).collect()
    }

    fn add_strings(&self, command: &mut Command) {
        let mount = "[Unit]\nDefaultDependencies=no\n[Mount]\nWhat=/dev/disk/by-id/virtio-probe\n\
                     Where=/run/probe\nType=erofs\nOptions=ro\n";
        let service = format!(
            "[Unit]\nDefaultDependencies=no\nRequiresMountsFor=/run/probe\nAfter=sysinit.target\n\
             Conflicts=shutdown.target\nBefore=shutdown.target\n\
             [Service]\nExecStart=/run/probe/image_probe {}\nStandardOutput=tty\nStandardError=tty\n\
             TTYPath=/dev/ttyS0\n",
            self.probe
        );
        let kubelet = format!(
            "d /etc/kubernetes/kubelet 0755\nf~ /etc/kubernetes/kubelet/config.json 0644 - - - {}\n",
            STANDARD.encode(self.kubelet)
        );
        let own = [
            ("tmpfiles.extra".to_owned(), kubelet),
            ("systemd.extra-unit.run-probe.mount".to_owned(), mount.to_owned()),
            ("systemd.extra-unit.probe.service".to_owned(), service),
        ];
        for (name, content) in own.iter().chain(&self.credentials) {
            let content = STANDARD.encode(content);
            let value = format!("io.systemd.credential.binary:{name}={content}");
            command.args(["-smbios", &format!("type=11,value={value}")]);
        }
        // Else it is QEMU's, and no one asks IMDS there.
        command.args(["-smbios", "type=1,manufacturer="]);
    }

    /// The image's own arguments refuse the firmware's strings.
    fn add_arguments(&self, command: &mut Command) {
        // What an emulated processor need not guard against, and a journal that no one reads.
        let kernel = "systemd.import_credentials=yes systemd.wants=probe.service mitigations=off cryptomgr.notests audit=0 \
                      systemd.log_level=warning";
        let without = self.without.join(" ");
        let value = format!("io.systemd.stub.kernel-cmdline-extra={kernel} {without}");
        command.args(["-smbios", &format!("type=11,value={value}")]);
    }
}

fn drive(command: &mut Command, text: &str) {
    command.args(["-drive", text]);
}
