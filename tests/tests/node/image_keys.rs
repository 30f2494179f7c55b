// SPDX-License-Identifier: Apache-2.0
//! Keys of the image, without one. Those that sign updates: what `packaging/sign` prints is the image's key ring, and gpg is
//! asked as systemd-pull asks it (src/import/pull-common.c, systemd 257). And which that sign the boot are refused.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::command::text;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("make a directory"));
        std::fs::write(place.path("SHA256SUMS"), "sums").expect("write the sums");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// With the key of this home, which is made if it is not there.
    fn sign(&self, key: &str, arguments: &[&str], valid: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/sign");
        let mut sign = Command::new(script);
        sign.env("UPDATE_KEY", self.path(key)).env("UPDATE_VALID", valid).args(arguments);
        let output = sign.current_dir(self.0.path()).output().expect("run sign");
        assert!(output.status.success(), "{}", text(&output));
        output
    }

    /// The key ring of an image that is built with this home.
    fn ring(&self, key: &str) -> PathBuf {
        let ring = self.path(&format!("{key}.gpg"));
        let public = self.sign(key, &["--public"], "1y").stdout;
        std::fs::write(&ring, public).expect("write the key ring");
        ring
    }

    fn verify(&self, ring: &Path) -> Output {
        let home = tempfile::tempdir_in(self.0.path()).expect("make a home");
        let mut gpg = Command::new("gpg");
        gpg.args(["--no-options", "--no-default-keyring", "--no-auto-key-locate"]);
        gpg.args(["--no-auto-check-trustdb", "--batch", "--trust-model=always"]);
        gpg.arg("--homedir").arg(home.path()).arg(format!("--keyring={}", ring.display()));
        gpg.arg("--verify").args([self.path("SHA256SUMS.gpg"), self.path("SHA256SUMS")]);
        gpg.output().expect("run gpg")
    }

    fn import(&self, ring: &Path, into: &str) {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.path(into)).args(["--quiet", "--batch", "--import"]).arg(ring);
        let output = gpg.output().expect("run gpg");
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn signature_of_an_update_holds_until_it_expires() {
    let place = Place::new();
    let ring = place.ring("key");
    place.sign("key", &["SHA256SUMS"], "seconds=2");
    let (begin, mut seen_good) = (Instant::now(), false);
    let refused = loop {
        let output = place.verify(&ring);
        if !output.status.success() {
            break output;
        }
        seen_good = true;
        assert!(begin.elapsed() < Duration::from_secs(30), "it does not expire");
        thread::yield_now();
    };
    assert!(seen_good, "it never held: {}", text(&refused));
    assert!(text(&refused).contains("Expired signature"), "{}", text(&refused));
}

#[test]
fn nodes_that_know_both_keys_take_updates_of_either_and_others_do_not() {
    let place = Place::new();
    let (before, after) = (place.ring("old"), place.ring("new"));
    place.import(&after, "old");
    let between = place.ring("old");
    place.sign("old", &["SHA256SUMS"], "1y");
    let holds = |ring: &Path| place.verify(ring).status.success();
    // The home has two public keys now, and signs with its own all the same.
    assert_eq!([&before, &between, &after].map(|ring| holds(ring)), [true, true, false]);
    place.sign("new", &["SHA256SUMS"], "1y");
    assert_eq!([&before, &between, &after].map(|ring| holds(ring)), [false, true, true]);
}

#[test]
fn key_of_secure_boot_without_its_certificate_is_refused() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-build/secure-boot");
    let file = script.to_str().expect("UTF-8");
    let one = "SECURE_BOOT_KEY and SECURE_BOOT_CERTIFICATE: found one, both or none are allowed";
    for (key, certificate, says) in [
        ("pkcs11:object=k", "", one),
        ("", file, one),
        ("/none", file, "SECURE_BOOT_KEY: no file /none; a file or a pkcs11: URI is allowed"),
        (file, "/none", "SECURE_BOOT_CERTIFICATE: no file /none"),
    ] {
        let environment = [("SECURE_BOOT_KEY", key), ("SECURE_BOOT_CERTIFICATE", certificate)];
        let output = Command::new(&script).envs(environment).output().expect("run it");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.trim_end(), format!("secure-boot: {says}"));
    }
    let pair = [("SECURE_BOOT_KEY", "pkcs11:object=k"), ("SECURE_BOOT_CERTIFICATE", file)];
    let output = Command::new(&script).envs(pair).output().expect("run it");
    assert!(text(&output).contains("image-build/secure-boot\npkcs11:object=k"), "{}", text(&output));
}
