// SPDX-License-Identifier: Apache-2.0
//! Does with its configuration what kubelet 1.36 does (cmd/kubelet/app/server.go, pkg/kubelet/cm/container_manager_linux.go),
//! since Debian has no kubelet: `--config`, the files of `--config-dir` over it, flags over both; then it ends if the kernel
//! is not as protectKernelDefaults requires, or prints the configuration in force as `/configz` has it, and runs on. It is
//! stricter: it knows the flags and fields that our nodes use, and ends where there are others, while kubelet only warns of an
//! unknown field of `--config` and ignores one of a drop-in. Without protectKernelDefaults kubelet sets the kernel's values;
//! this does not.

mod configuration;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use configuration::Configuration;

/// Below /proc/sys, and what each must be.
const KERNEL: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = start(&arguments) {
        eprintln!("kubelet: {error:#}");
        return ExitCode::FAILURE;
    }
    loop {
        std::thread::park();
    }
}

fn start(arguments: &[String]) -> Result<()> {
    let flags = Flags::read(arguments)?;
    let configuration = flags.configuration()?;
    if configuration.protect_kernel_defaults {
        check_kernel(Path::new("/proc/sys"))?;
    }
    println!("{}", serde_json::to_string(&configuration)?);
    Ok(())
}

#[derive(Default)]
struct Flags {
    config: Option<String>,
    config_dir: Option<String>,
    max_pods: Option<i32>,
    kube_reserved: Option<String>,
}

impl Flags {
    /// As `--name=value` or `--name value`; of one given twice the last counts.
    fn read(arguments: &[String]) -> Result<Self> {
        let mut flags = Self::default();
        let mut words = arguments.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, value),
                None => (word, words.next().with_context(|| format!("no value for {word}"))?),
            };
            match name {
                "--config" => flags.config = Some(value.into()),
                "--config-dir" => flags.config_dir = Some(value.into()),
                "--kubeconfig" => {}
                "--max-pods" => flags.max_pods = Some(value.parse().context("read --max-pods")?),
                "--kube-reserved" => flags.kube_reserved = Some(value.into()),
                _ => bail!("unknown flag: {word}"),
            }
        }
        Ok(flags)
    }

    fn configuration(&self) -> Result<Configuration> {
        let file = self.config.as_ref().map(Path::new);
        let mut configuration = Configuration::load(file, self.config_dir.as_ref().map(Path::new))?;
        if let Some(pods) = self.max_pods {
            configuration.max_pods = pods;
        }
        // The flag's map takes the place of the other as a whole.
        if let Some(text) = &self.kube_reserved {
            let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            let pairs: Option<_> = text.split(',').map(pair).collect();
            configuration.kube_reserved = pairs.context("read --kube-reserved")?;
        }
        ensure!(configuration.max_pods >= 0, "maxPods is negative");
        Ok(configuration)
    }
}

/// All that differ, as one error.
fn check_kernel(sys: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for (key, expected) in KERNEL {
        let text = std::fs::read_to_string(sys.join(key)).with_context(|| format!("read {key}"))?;
        if text.trim().parse() != Ok(expected) {
            wrong.push(format!(
                "invalid kernel flag: {key}, {expected} expected, is {}",
                text.trim()
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn flags(line: &str) -> Flags {
        Flags::read(&line.split(' ').map(String::from).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn flags_override_files_and_replace_the_whole_map() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let text = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nmaxPods: 5\n\
                    kubeReserved: {cpu: 70m, memory: 2Gi}\n";
        fs::write(&file, text).unwrap();
        let line = format!("--config={} --max-pods 7 --kube-reserved=memory=1Gi", file.display());
        let found = flags(&line).configuration().unwrap();
        assert_eq!(found.max_pods, 7);
        assert_eq!(found.kube_reserved, [("memory".to_owned(), "1Gi".to_owned())].into());
    }

    #[test]
    fn an_unknown_flag_ends_it() {
        let error = Flags::read(&["--v=2".to_owned()]).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("unknown flag: --v=2"));
    }

    #[test]
    fn the_image_sets_all_that_kubelet_checks() {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-build/mkosi.extra");
        let text = fs::read_to_string(image.join("usr/lib/sysctl.d/90-node.conf")).unwrap();
        for (key, expected) in KERNEL {
            let line = format!("{} = {expected}", key.replace('/', "."));
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }

    #[test]
    fn each_kernel_value_that_differs_is_named() {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir_all(sys.path().join("kernel/keys")).unwrap();
        fs::create_dir(sys.path().join("vm")).unwrap();
        for (key, value) in KERNEL {
            fs::write(sys.path().join(key), format!("{value}\n")).unwrap();
        }
        check_kernel(sys.path()).unwrap();
        fs::write(sys.path().join("kernel/panic"), "5\n").unwrap();
        fs::write(sys.path().join("vm/panic_on_oom"), "1\n").unwrap();
        assert_eq!(
            check_kernel(sys.path()).unwrap_err().to_string(),
            "invalid kernel flag: vm/panic_on_oom, 0 expected, is 1; \
             invalid kernel flag: kernel/panic, 10 expected, is 5"
        );
    }
}
