// SPDX-License-Identifier: Apache-2.0
//! Tables of pods that fit a terminal: the names give way, by what is in their
//! middle, and no column does. Pure.

/// One column, whose cells are at the left or, numbers, at the right.
pub struct Column {
    pub head: &'static str,
    /// So that a screen that is shown again and again does not dance.
    pub width: usize,
    pub is_number: bool,
}

/// Headings, then a line for each row, no longer than this if it is given. The first column has the names.
pub fn lines(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    let heads = columns.iter().map(|column| column.head.to_owned()).collect::<Vec<_>>();
    let length = |cell: &String| cell.chars().count();
    let cell_width = |(n, column): (usize, &Column)| {
        let widest = rows.iter().map(|row| length(&row[n])).max().unwrap_or(0);
        widest.max(column.width).max(column.head.len())
    };
    let mut widths = columns.iter().enumerate().map(cell_width).collect::<Vec<_>>();
    if let (Some(width), Some((names, others))) = (width, widths.split_first_mut()) {
        let left = width.saturating_sub(others.iter().map(|other| other + 1).sum());
        *names = left.clamp(columns[0].head.len(), *names);
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, column), &width)| {
            let cell = cut(cell, width);
            if column.is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    std::iter::once(&heads).chain(rows).map(line).collect()
}

/// No longer than this: of a pod's name the beginning says what it is, the end which one.
pub fn cut(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return text.into();
    }
    let tail = (width - 1) / 2;
    let head = text.chars().take(width - 1 - tail);
    head.chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// Three digits of a number of bits per second, or of anything else that can be large.
pub fn short(number: u64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 999.5 {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    let digits = format!("{value:.decimals$}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    let digits = if unit == 0 || decimals == 0 { format!("{value:.0}") } else { digits.into() };
    digits + units[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_way_and_columns_do_not() {
        let column = |head, is_number| Column { head, width: 5, is_number };
        let columns = [column("POD", false), column("DIR", false), column("RATE", true)];
        let row = |name: &str| vec![name.to_owned(), "egress".into(), "20.2M".into()];
        let rows = [row("shop/web"), row("batch-night/report-7d9c4b-x2x9k")];
        let wide = lines(&columns, &rows, None);
        assert_eq!(wide[1], "shop/web                        egress 20.2M");
        assert_eq!(lines(&columns, &rows, Some(200)), wide);
        let narrow = lines(&columns, &rows, Some(30));
        assert_eq!(narrow[0], "POD               DIR     RATE");
        assert_eq!(narrow[2], "batch-ni…4b-x2x9k egress 20.2M");
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1k"),
            (20_200_000, "20.2M"),
            (100_000_000, "100M"),
            (999_499_999, "999M"),
            (999_500_000, "1G"),
            (1_234_567_890, "1.23G"),
            (10_000_000_000, "10G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }
}
