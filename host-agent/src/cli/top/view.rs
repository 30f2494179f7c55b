// SPDX-License-Identifier: Apache-2.0
//! What `sluice top` shows: totals, what is degraded, and as many rows as fit;
//! and what each key does to that. Pure.

use super::table::{self, PodRow, SortOrder};
use super::terminal::{HEAD, Key};
use crate::cli::columns::short;
use crate::status::Pods;
use crate::status::text::node_line;

#[derive(Default)]
pub struct View {
    rows: Vec<PodRow>,
    /// How many pods there are, limited or not.
    pods: usize,
    /// What is degraded, or why that is not known.
    banner: Option<String>,
    /// The node's line, where pods share that.
    node: Option<String>,
    pub order: SortOrder,
    /// What the names that are shown have in them.
    filter: String,
    is_typing: bool,
    shows_help: bool,
    /// The first row that is shown.
    first: usize,
}

const HELP: [&str; 9] = [
    "",
    "u r l w m d n      sort by used, rate, limit, wait, marked, dropped, name",
    "/                  show the pods whose names have what is typed; Enter ends that",
    "Esc                show all pods again; leave this help",
    "Up Down            scroll by a line",
    "PageUp PageDown    scroll by a screen",
    "Home End           the first, the last line",
    "h ?                this help",
    "q Ctrl-C           end",
];

impl View {
    pub fn new(order: SortOrder) -> Self {
        Self { order, ..Self::default() }
    }

    pub fn found(&mut self, rows: Vec<PodRow>, pods: &Pods) {
        (self.rows, self.pods) = (rows, pods.pods.len());
        self.node = node_line(&pods.node_share, |direction| pods.node_rate(direction))
            .map(|line| format!("node: {line}"));
        let mut codes: Vec<&str> = pods.degraded.iter().map(|trouble| trouble.code()).collect();
        codes.dedup();
        let banner = || format!("DEGRADED: {}; sluice status says more", codes.join(", "));
        self.banner = (!codes.is_empty()).then(banner);
    }

    pub fn lost(&mut self, error: &anyhow::Error) {
        self.banner = Some(format!("DEGRADED: these are the last numbers: {error:#}"));
    }

    /// Whether that is the end.
    pub fn press(&mut self, key: Key, height: usize) -> bool {
        let page = height.saturating_sub(self.head()).max(1);
        match key {
            Key::Quit => return true,
            Key::Up => self.first = self.first.saturating_sub(1),
            Key::Down => self.first += 1,
            Key::PageUp => self.first = self.first.saturating_sub(page),
            Key::PageDown => self.first += page,
            Key::Home => self.first = 0,
            Key::End => self.first = usize::MAX,
            Key::Enter => self.is_typing = false,
            Key::Escape if self.shows_help => self.shows_help = false,
            Key::Escape => (self.is_typing, self.filter) = (false, String::new()),
            Key::Backspace if self.is_typing => drop(self.filter.pop()),
            Key::Letter(letter) if self.is_typing => self.filter.push(letter),
            Key::Letter('q') => return true,
            Key::Letter('k') => return self.press(Key::Up, height),
            Key::Letter('j') => return self.press(Key::Down, height),
            Key::Letter('h' | '?') => self.shows_help = !self.shows_help,
            Key::Letter('/') => (self.is_typing, self.first) = (true, 0),
            Key::Letter(letter) => self.order = SortOrder::by_key(letter).unwrap_or(self.order),
            Key::Backspace => {}
        }
        self.order.sort(&mut self.rows);
        self.first = self.first.min(self.chosen().len().saturating_sub(page));
        false
    }

    fn chosen(&self) -> Vec<PodRow> {
        let is_chosen = |row: &&PodRow| row.name.contains(&self.filter);
        self.rows.iter().filter(is_chosen).cloned().collect()
    }

    /// A screen of this size.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let chosen = self.chosen();
        let mut table = table::lines(&chosen, Some(width)).into_iter();
        let banner = self.banner.clone().unwrap_or("degraded: nothing".into());
        let mut lines = vec![self.totals()];
        lines.extend(self.node.clone());
        lines.extend([banner, self.keys()]);
        lines.extend(table.next());
        let room = height.saturating_sub(self.head());
        match chosen.is_empty() {
            _ if self.shows_help => lines.extend(HELP.map(str::to_owned)),
            true => lines.push(self.why_empty()),
            false => lines.extend(table.skip(self.first).take(room)),
        }
        lines.truncate(height);
        lines.iter().map(|line| line.chars().take(width).collect()).collect()
    }

    /// Lines above the rows.
    pub fn head(&self) -> usize {
        HEAD + usize::from(self.node.is_some())
    }

    fn totals(&self) -> String {
        let sum = |direction: &str| {
            let rows = self.rows.iter().filter(|row| row.direction == direction);
            short(rows.map(|row| row.rate_bps).sum())
        };
        let count = |value: fn(&PodRow) -> u64| short(self.rows.iter().map(value).sum());
        format!(
            "pods {}  limits {}  egress {}  ingress {}  marked {}  dropped {}",
            self.pods,
            self.rows.len(),
            sum("egress"),
            sum("ingress"),
            count(|row| row.marked_packets),
            count(|row| row.dropped_packets),
        )
    }

    fn keys(&self) -> String {
        if self.is_typing {
            return format!("filter: {}_", self.filter);
        }
        let filter = match self.filter.as_str() {
            "" => String::new(),
            filter => format!("  filter: {filter}"),
        };
        format!("by {}{filter}  sort {} [/] [h]elp [q]uit", self.order.name(), SortOrder::keys())
    }

    fn why_empty(&self) -> String {
        match (self.pods, self.rows.is_empty()) {
            (0, _) => "no pods yet".into(),
            (_, true) => "no pod has a limit".into(),
            (_, false) => format!("no pod's name has {:?}", self.filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::node_share::tests::{lines, share};
    use crate::status::text::tests::pod;
    use crate::trouble::{Trouble, code};

    /// With so many pods.
    fn view(count: usize) -> View {
        let named = |n: usize| {
            let mut pod = pod();
            (pod.pod, pod.slot) = (format!("p{n:02}"), n as u16);
            (pod.ingress.limit_bps, pod.egress.measured_bps) = (None, Some(2_000_000));
            pod
        };
        let pods = Pods {
            at_ns: 0,
            node_share: Default::default(),
            pods: (0..count).map(named).collect(),
            degraded: Vec::new(),
        };
        let mut view = View::new(SortOrder::Name);
        view.found(PodRow::of(&pods, &pods), &pods);
        view
    }

    fn names(view: &View) -> Vec<String> {
        let lines = view.lines(80, HEAD + 3);
        lines[HEAD..].iter().map(|line| line.split(' ').next().unwrap_or_default().into()).collect()
    }

    #[test]
    fn totals_stand_above_and_what_is_degraded_below_them() {
        let mut view = view(3);
        let lines = view.lines(80, 24);
        assert_eq!(lines[0], "pods 3  limits 3  egress 6M  ingress 0  marked 0  dropped 0");
        assert_eq!(lines[1], "degraded: nothing");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
        let trouble = Trouble::new(code::AGENT_NOT_RUNNING, "sluice agent", "no agent runs");
        let pods = Pods {
            at_ns: 0,
            node_share: Default::default(),
            pods: Vec::new(),
            degraded: vec![trouble.clone(), trouble],
        };
        view.found(Vec::new(), &pods);
        let lines = view.lines(80, 24);
        assert_eq!(lines[1], "DEGRADED: agent-not-running; sluice status says more");
        assert_eq!(lines[HEAD], "no pods yet");
        view.lost(&anyhow::anyhow!("no agent runs"));
        assert!(view.lines(80, 24)[1].ends_with("the last numbers: no agent runs"));
    }

    #[test]
    fn line_that_pods_share_stands_below_the_totals() {
        let mut pods =
            Pods { at_ns: 0, node_share: lines(), pods: vec![pod()], degraded: Vec::new() };
        pods.pods[0].egress.share = Some(share());
        let mut view = View::new(SortOrder::Name);
        view.found(PodRow::of(&pods, &pods), &pods);
        let lines = view.lines(80, 24);
        assert_eq!(
            lines[1],
            "node: egress 13Mbit of 20Mbit, busy, weights 300; ingress 20Mbit, not busy"
        );
        assert!(lines[HEAD].starts_with("POD ") && lines[HEAD + 1].starts_with("default/web "));
    }

    #[test]
    fn keys_scroll_as_far_as_there_are_rows() {
        let mut view = view(10);
        let height = HEAD + 3;
        for (key, first) in [
            (Key::Up, "default/p00"),
            (Key::Down, "default/p01"),
            (Key::PageDown, "default/p04"),
            (Key::End, "default/p07"),
            (Key::PageDown, "default/p07"),
            (Key::PageUp, "default/p04"),
            (Key::Home, "default/p00"),
        ] {
            assert!(!view.press(key, height));
            assert_eq!((names(&view)[0].as_str(), names(&view).len()), (first, 3), "{key:?}");
        }
    }

    #[test]
    fn filter_takes_letters_that_are_keys_otherwise() {
        let mut view = view(10);
        for letter in ['/', 'q', 'p', '0', '7'] {
            assert!(!view.press(Key::Letter(letter), 24));
        }
        assert_eq!(view.lines(80, 24)[2], "filter: qp07_");
        assert_eq!(view.lines(80, 24)[HEAD], "no pod's name has \"qp07\"");
        view.press(Key::Escape, 24);
        for key in [Key::Letter('/'), Key::Letter('7'), Key::Enter] {
            view.press(key, 24);
        }
        assert_eq!(names(&view), ["default/p07"]);
        assert!(!view.press(Key::Letter('h'), 24) && view.lines(80, 24)[5].starts_with("u r l"));
        view.press(Key::Escape, 24);
        assert_eq!(names(&view), ["default/p07"]);
        view.press(Key::Escape, 24);
        assert_eq!(names(&view).len(), 3);
        assert!(view.press(Key::Letter('q'), 24));
    }
}
