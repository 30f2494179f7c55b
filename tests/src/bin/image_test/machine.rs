// SPDX-License-Identifier: Apache-2.0
//! What a machine is made of, as arguments of QEMU. The image has no shell: what a test wants done inside is a unit,
//! handed over in the firmware's strings as systemd reads them, and a program on a second disk.

use std::path::Path;
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

/// One machine, before it is on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub bus: Bus,
    /// Port of this host where IMDS is; without it nothing answers at its address.
    pub imds_port: Option<u16>,
    /// Directory of what can be fetched from 169.254.169.253.
    pub files: Option<std::path::PathBuf>,
    /// Verb of the probe that runs when the machine is up.
    pub probe: String,
    /// Name and text of credentials.
    pub credentials: Vec<(String, String)>,
    /// One processor whose time goes by its own instructions: what is measured inside does not depend on what
    /// else this host does.
    pub counts_instructions: bool,
}

impl Machine {
    pub fn new(probe: &str) -> Self {
        Self {
            bus: Bus::Virtio,
            imds_port: None,
            files: None,
            probe: probe.into(),
            credentials: Vec::new(),
            counts_instructions: false,
        }
    }

    pub fn credential(mut self, name: &str, text: &str) -> Self {
        self.credentials.push((name.into(), text.into()));
        self
    }

    pub fn command(&self, tools: &Tools, disk: &Path, variables: &Path, probe: &Path) -> Command {
        let mut command = tools.command("qemu-system-x86_64");
        let share = tools.path("usr/share");
        command.arg("-L").arg(share.join("qemu"));
        let processors = match self.counts_instructions {
            true => "-accel tcg,thread=single,tb-size=256 -smp 1 -icount shift=0",
            false => "-accel tcg,thread=multi,tb-size=256 -smp 2",
        };
        command.args(processors.split(' '));
        // qemu64: the fewer features, the less there is to emulate.
        command.args("-machine q35 -cpu qemu64 -m 1024".split(' '));
        command.args(
            "-nodefaults -no-user-config -display none -monitor none -serial stdio".split(' '),
        );
        command
            .args("-uuid 5d1c6f0e-3c5b-4a57-8f7e-1f0e5f2a9b11 -device virtio-rng-pci".split(' '));
        let firmware = text(&share.join("OVMF/OVMF_CODE_4M.fd")).to_owned();
        drive(&mut command, &format!("if=pflash,format=raw,unit=0,readonly=on,file={firmware}"));
        drive(&mut command, &format!("if=pflash,format=raw,unit=1,file={}", text(variables)));
        drive(
            &mut command,
            &format!("if=none,id=volume,format=qcow2,discard=unmap,file={}", text(disk)),
        );
        let bus = match self.bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Nvme => "nvme",
        };
        command.args(["-device", &format!("{bus},drive=volume,serial=volume,bootindex=0")]);
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
        command
    }

    /// The guest reaches nothing but the two addresses.
    fn network(&self) -> String {
        let own = std::env::current_exe().unwrap_or_default();
        let own = own.display();
        let mut link =
            "user,id=link,net=169.254.169.0/24,dhcpstart=169.254.169.15,restrict=on".to_owned();
        if let Some(port) = self.imds_port {
            link += &format!(",guestfwd=tcp:169.254.169.254:80-cmd:{own} relay {port}");
        }
        if let Some(directory) = &self.files {
            link += &format!(
                ",guestfwd=tcp:169.254.169.253:80-cmd:{own} files {}",
                directory.display()
            );
        }
        link
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
        let own = [
            ("systemd.extra-unit.run-probe.mount".to_owned(), mount.to_owned()),
            ("systemd.extra-unit.probe.service".to_owned(), service),
        ];
        for (name, content) in own.iter().chain(&self.credentials) {
            let content = STANDARD.encode(content);
            let value = format!("io.systemd.credential.binary:{name}={content}");
            command.args(["-smbios", &format!("type=11,value={value}")]);
        }
        // What an emulated processor need not guard against.
        let kernel = "systemd.wants=probe.service mitigations=off cryptomgr.notests";
        let value = format!("io.systemd.stub.kernel-cmdline-extra={kernel}");
        command.args(["-smbios", &format!("type=11,value={value}")]);
    }
}

fn drive(command: &mut Command, text: &str) {
    command.args(["-drive", text]);
}
