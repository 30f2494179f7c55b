// SPDX-License-Identifier: Apache-2.0
//! A node is ready when its main CNI plugin says so, with Sluice installed and
//! running: not before, at once then, and ever after.

use std::fs;
use std::time::{Duration, Instant};

use tests::command::wait_for;
use tests::containerd::PodSpec;
use tests::sluice_node::{EGRESS, PORTMAP, SluiceNode, conflist, on_each_release_without_network};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn node_is_ready_with_the_main_plugins_conflist_and_not_before() {
    on_each_release_without_network(|release, node| {
        wait_for("word that it waits", SOON, || {
            node.troubles().iter().any(|code| code == "conflist-missing").then_some(())
        });
        let dir = node.runtime.conf_dir();
        assert_eq!(fs::read_dir(&dir).expect("the directory").count(), 0);
        // A removal makes containerd read the directory again, so that it is not old news.
        fs::write(dir.join("poke"), "").expect("write");
        fs::remove_file(dir.join("poke")).expect("remove");
        let waiting =
            node.runtime.wait_for_status(|s| s.last_cni_load.contains("no network config found"));
        let waiting = waiting.expect("a status");
        assert!(!waiting.ready && waiting.reason == "NetworkPluginNotReady", "{waiting:?}");
        let main = conflist("1.0.0", "node", &[PORTMAP]);
        let began = Instant::now();
        node.rename_into_place(&main);
        node.runtime.wait_for_status(|status| status.ready).expect("a ready node");
        let ready = began.elapsed();
        wait_for_our_entry(node);
        println!("{release:?}: ready after {ready:?}, with our entry after {:?}", began.elapsed());
        assert!(ready < Duration::from_secs(2), "{ready:?}");
        network_stays_while_the_list_is_written_again_and_again(node, &main);
        let pod = node.run(&PodSpec::new("default", "limited").annotation(EGRESS, "20M"));
        assert_eq!(node.limits("limited"), [Some(20_000_000), None]);
        node.remove(&pod.id);
        node.nothing_left();
    });
}

fn wait_for_our_entry(node: &SluiceNode) {
    let entry = |text: &str| text.contains(r#""sluice""#);
    node.runtime.wait_for_status(|status| entry(&status.cni_config)).expect("our entry");
}

fn network_stays_while_the_list_is_written_again_and_again(node: &SluiceNode, main: &str) {
    for _ in 0..30 {
        node.rename_into_place(main);
        for _ in 0..3 {
            let status = node.runtime.status().expect("a status");
            assert!(status.ready && status.last_cni_load == "OK", "{status:?}");
        }
    }
    wait_for_our_entry(node);
}
