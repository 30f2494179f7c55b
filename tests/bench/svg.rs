// SPDX-License-Identifier: Apache-2.0
//! The few shapes that the plots need, as SVG text. Colours are readable on a
//! light and on a dark page.

use std::fmt::Write;

pub const GREY: &str = "#888888";
pub const OWN: &str = "#0a7d4f";
pub const PEERS: [&str; 6] = ["#c0504d", "#3f77bf", "#b8860b", "#8064a2", "#4bacc6", "#7f7f7f"];

pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// Where a text is held.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], colour: &str, width: f64) {
        self.add(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        ));
    }

    pub fn dot(&mut self, [x, y]: [f64; 2], colour: &str, is_full: bool) {
        let fill = if is_full { colour } else { "none" };
        self.add(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{fill}" stroke="{colour}" stroke-width="2"/>"#
        ));
    }

    pub fn bar(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], colour: &str) {
        self.add(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        ));
    }

    pub fn path(&mut self, points: &[[f64; 2]], colour: &str) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.add(format_args!(
            r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#
        ));
    }

    pub fn text(&mut self, [x, y]: [f64; 2], anchor: Anchor, colour: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#
        ));
    }

    fn add(&mut self, shape: std::fmt::Arguments) {
        // A String takes all that is written.
        let _ = writeln!(self.body, "  {shape}");
    }

    pub fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n{body}</svg>\n"
        )
    }
}

/// A logarithmic axis from one value to another, over so many pixels from a start.
#[derive(Clone, Copy)]
pub struct LogAxis {
    pub values: [f64; 2],
    pub pixels: [f64; 2],
}

impl LogAxis {
    /// The powers of ten that hold all values.
    pub fn around(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value.log10().floor()), high.max(value.log10().ceil()));
        }
        Self { values: [10f64.powf(low), 10f64.powf(high.max(low + 1.0))], pixels }
    }

    pub fn at(&self, value: f64) -> f64 {
        let [low, high] = self.values.map(f64::log10);
        let share = (value.max(self.values[0]).log10() - low) / (high - low);
        self.pixels[0] + share * (self.pixels[1] - self.pixels[0])
    }

    pub fn ticks(&self) -> Vec<f64> {
        let [low, high] = self.values.map(|value| value.log10().round() as i32);
        (low..=high).map(|power| 10f64.powi(power)).collect()
    }
}
