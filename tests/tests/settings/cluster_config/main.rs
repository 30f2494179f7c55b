// SPDX-License-Identifier: Apache-2.0
//! What `sluice cluster-config` prints means the same to every reader, and
//! what the settings mean; user data in it gives the settings back.

mod check;
mod formats;
mod meaning;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tests::cluster_config::{Desk, from_base64, terraform, yaml};
use tests::command::{executable, json as parsed, run, text};

/// A table that Bottlerocket itself ignores.
const HEAD: &str = "[sluice]\nversion = 1\n";
const JOINS: &str = "\n[settings.kubernetes]\ncluster-name = \"prod\"\napi-server = \"https://ENDPOINT\"\n\
                     cluster-certificate = \"Q0E=\"\n";

fn document(lines: &str) -> String {
    format!("sluice.version = 1\n{lines}")
}

#[test]
fn bottlerocket_itself_is_told_the_number_of_pods() {
    let user_data = |lines: &str| {
        let template = Desk::with(&document(lines)).config("launch-template --os bottlerocket");
        from_base64(&parsed(&template)["UserData"])
    };
    let printed = user_data("sluice.max-pods.value = 58\n");
    assert_eq!(printed, format!("{HEAD}\n[sluice.max-pods]\nvalue = 58\n{JOINS}max-pods = 58\n"));
    assert_eq!(user_data(""), format!("{HEAD}{JOINS}"));
}

/// A lower layer's value would come back if the key were left out for being the default.
#[test]
fn user_data_that_undoes_the_images_settings_still_does() {
    let desk = Desk::with(&document("sluice.bandwidth.ecn = true\n"));
    desk.put(
        "root/usr/share/sluice/defaults.toml",
        document("sluice.bandwidth.ecn = false\nsluice.bandwidth.burst = '9ms'\n").as_bytes(),
    );
    let template = parsed(&desk.config("launch-template --os bottlerocket"));
    let user_data = from_base64(&template["UserData"]);
    assert_eq!(
        user_data,
        format!("{HEAD}\n[sluice.bandwidth]\nburst = \"9ms\"\necn = true\n{JOINS}")
    );
    assert_eq!(desk.settings_of(&user_data)["bandwidth"]["ecn"], true);
}

#[test]
fn what_json_cannot_say_goes_to_standard_error() {
    let desk = Desk::with(&document("sluice.cni.mode = 'standalone'\nsluice.max-pods.value = 9\n"));
    for (format, notes) in [("addon", 1), ("launch-template", 2), ("terraform", 0), ("env", 0)] {
        let output = desk.try_config(format);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said.lines().filter(|line| line.starts_with("sluice: info: ")).count(),
            notes,
            "{format}: {said}"
        );
    }
    let overridden = document(
        "sluice.prefix-delegation = { enabled = true, warm-prefix-target = 2, warm-ip-target = 5 }\n",
    );
    let said = text(&Desk::with(&overridden).try_config("env"));
    assert!(said.contains("warm-prefix-target: without effect"), "{said}");
    let long = document(&format!("sluice.cni.conf-dir = '/{:x<16384}'\n", ""));
    let said = text(&Desk::with(&long).try_config("env"));
    assert!(said.contains("bytes, and EC2 takes 16384: gzip it, which Sluice reads"), "{said}");
}

#[test]
fn what_cannot_be_said_is_an_error_that_says_what_to_give() {
    let standalone = document("sluice.cni.mode = 'standalone'\n");
    let none = document("");
    let ipv6 = format!(
        "{standalone}sluice.prefix-delegation.enabled = true\nsluice.max-pods.ip-family = 'ipv6'\n"
    );
    let unknown = "how many prefixes a node's first interface needs hangs on its instance type: give \
                   --instance-type, or max-pods.value";
    for (settings, arguments, status, said) in [
        (&*standalone, "launch-template", 1, unknown),
        (&standalone, "terraform", 1, unknown),
        (&standalone, "karpenter", 1, unknown),
        (
            &ipv6,
            "karpenter",
            1,
            "Karpenter has no field for the IPv6 prefix that cni.mode = \"standalone\" \
            needs: use managed nodes with `cluster-config launch-template`",
        ),
        (
            &none,
            "karpenter --os bottlerocket",
            1,
            "Karpenter keeps nothing of a Bottlerocket node's user data but [settings], and Bottlerocket does \
             not start with a [settings.sluice]: use managed nodes with `cluster-config launch-template --os \
             bottlerocket`, or put the settings into the image (/usr/share/sluice/defaults.toml)",
        ),
        (
            &none,
            "env --instance-type t3a.mediun",
            1,
            "instance type \"t3a.mediun\" is not in this program's table of 1391",
        ),
    ] {
        let output = Desk::with(settings).try_config(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("sluice: error: {said}\n"));
        assert_eq!(output.stdout, b"");
    }
    let output = Desk::with(&document("sluice.max-pods.value = 0\n")).try_config("env");
    assert_eq!(output.status.code(), Some(78));
    let output = Desk::with("").command().arg("cluster-config").output().expect("run sluice");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "sluice: error: find the settings (--user-data \
        names a file): no settings are in force: `sluice boot` has not run on this node\n"
    );
}

/// EKS adds nothing to the user data of nodes with an image of their own.
#[test]
fn format_without_what_nodes_need_to_join_says_what_to_give() {
    let desk = Desk::with(&document(""));
    for (format, missing) in [
        ("launch-template", "--cluster and --image-id"),
        ("launch-template --image-id ami-0123", "--cluster"),
        ("eksctl", "--cluster and --launch-template-id"),
    ] {
        let mut command = desk.command();
        command.arg("cluster-config").args(format.split(' '));
        let output = command.arg("--user-data").arg(desk.file("user-data")).output();
        let output = output.expect("run sluice");
        assert_eq!(output.status.code(), Some(1), "{format}");
        let said =
            format!("sluice: error: without {missing} nodes would not join: give {missing}\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr), said);
        assert_eq!(output.stdout, b"");
    }
    let template = parsed(&desk.config("launch-template"));
    assert_eq!(template["ImageId"], "ami-0123");
    let user_data = from_base64(&template["UserData"]);
    for line in ["kind: NodeConfig", "name: \"prod\"", "cidr: \"10.100.0.0/16\""] {
        assert!(user_data.contains(line), "{user_data}");
    }
    let resources = terraform(&desk.config("terraform"))["aws_launch_template"]["sluice"].clone();
    assert_eq!(resources["image_id"], "ami-0123");
    assert_eq!(from_base64(&resources["user_data"]), user_data);
    let cluster = yaml(&desk.config("eksctl"));
    assert_eq!(cluster["metadata"]["region"], "eu-central-1");
    assert_eq!(cluster["managedNodeGroups"][0]["launchTemplate"]["id"], "lt-0123");
}

#[test]
fn neither_root_nor_a_node_is_needed() {
    let desk = Desk::with("");
    // The built one may lie where no one else may look. By another process: a file that is open for
    // writing in a child of a test beside this one cannot be run.
    let own = desk.put("own", b"").with_file_name("sluice");
    let utf8 = |path: &Path| path.to_str().expect("path is UTF-8").to_owned();
    run("cp", &[&utf8(&executable("sluice")), &utf8(&own)]);
    run("chmod", &["755", &utf8(&own), &utf8(own.parent().expect("a directory"))]);
    let mut command = Command::new(&own);
    command.args(["cluster-config", "env", "--user-data", "/dev/null"]).uid(65534).gid(65534);
    let output = command.output().expect("run sluice");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), desk.config("env"));
}

/// The blocks of docs/cluster.md that begin with this command, line by line.
fn examples(document: &str) -> Vec<(String, Vec<String>)> {
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = false;
    for line in document.lines() {
        let line = line.strip_prefix("    ");
        match line.map(|line| (line, line.strip_prefix("$ sluice cluster-config "))) {
            Some((_, Some(arguments))) if !arguments.contains("--check") => {
                examples.push((arguments.into(), Vec::new()));
                open = true;
            }
            Some((line, _)) if open => examples.last_mut().expect("one").1.push(line.into()),
            _ => open = false,
        }
    }
    examples
}

#[test]
fn examples_of_the_documentation_are_what_is_printed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster.md");
    let document = std::fs::read_to_string(file).expect("the document");
    let settings = document.split("    [settings.sluice]").nth(1).expect("settings");
    let settings = settings.split("\n\nUser data in").next().expect("settings");
    let desk = Desk::with(&format!("[settings.sluice]{}", settings.replace("\n    ", "\n")));
    let examples = examples(&document);
    let named = examples.iter().map(|(format, _)| format.as_str()).collect::<Vec<_>>();
    assert_eq!(named, ["env", "addon", "terraform", "launch-template", "karpenter", "eksctl"]);
    for (format, lines) in &examples {
        let printed = desk.config(format);
        // A line of dots stands for any; what follows comes later in the output.
        let mut rest = format!("\n{printed}");
        for block in lines.split(|line| line == "…").filter(|block| !block.is_empty()) {
            let block = format!("\n{}\n", block.join("\n"));
            let at = rest.find(&block).unwrap_or_else(|| panic!("{format}:{block}not in{rest}"));
            rest.drain(..at + block.len() - 1);
        }
    }
}
