// SPDX-License-Identifier: Apache-2.0
//! Packs data/ec2-instances.csv into constants, so that nothing is parsed when a type is looked up.

use std::path::{Path, PathBuf};

const CSV: &str = "../data/ec2-instances.csv";
const COLUMNS: &str =
    "instance_type,enis,ipv4_per_eni,hypervisor,bare_metal,vcpus,baseline_gbps,peak_gbps";

fn main() {
    println!("cargo::rerun-if-changed={CSV}");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    let text = std::fs::read_to_string(CSV).map_err(|e| format!("{CSV}: {e}"));
    let written = text.and_then(|text| {
        let path = out.join("instances.rs");
        std::fs::write(&path, table(&text)?).map_err(|e| format!("{}: {e}", path.display()))
    });
    if let Err(error) = written {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}

/// All names in one text, and a row of numbers for each, in the order of the names.
fn table(text: &str) -> Result<String, String> {
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, head)| head) != Some(COLUMNS) {
        return Err(format!("{CSV}:1: expected the columns {COLUMNS}"));
    }
    let (mut names, mut rows, mut before) = (String::new(), String::new(), "");
    for (at, line) in lines {
        let wrong = |what: &str| format!("{CSV}:{}: {what}: {line}", at + 1);
        let (name, row) = row(line).map_err(|what| wrong(&what))?;
        if name <= before {
            return Err(wrong("types must be in the order of their bytes, each once"));
        }
        before = name;
        names.push_str(name);
        rows += &format!("    Row {{ name_end: {}, {row} }},\n", names.len());
    }
    let source = Path::new(CSV).file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(format!(
        "// Made of {} by build.rs.\nconst NAMES: &str = {names:?};\nconst ROWS: &[Row] = &[\n{rows}];\n",
        source.unwrap_or_default()
    ))
}

fn row(line: &str) -> Result<(&str, String), String> {
    let fields: Vec<&str> = line.split(',').collect();
    let [name, enis, ipv4_per_eni, hypervisor, bare_metal, vcpus, baseline, peak] = fields[..]
    else {
        return Err(format!("{} columns, expected 8", fields.len()));
    };
    let number = |field: &str, column: &str| {
        let read = field.parse::<u16>().ok().filter(|number| *number > 0);
        read.ok_or_else(|| format!("{column} is {field:?}, expected a whole number from 1"))
    };
    let enis = number(enis, "enis")?;
    let ipv4_per_eni = number(ipv4_per_eni, "ipv4_per_eni")?;
    let vcpus = if vcpus.is_empty() { 0 } else { number(vcpus, "vcpus")? };
    let hypervisor = match hypervisor {
        "nitro" => "Nitro",
        "xen" => "Xen",
        "unknown" => "Unknown",
        other => return Err(format!("hypervisor is {other:?}, expected nitro, xen or unknown")),
    };
    let bare_metal: bool = bare_metal
        .parse()
        .map_err(|_| format!("bare_metal is {bare_metal:?}, expected true or false"))?;
    let mbit = |field: &str, column: &str| match field.parse::<f64>() {
        _ if field.is_empty() => Ok(0),
        Ok(gbit) if (0.001..10_000.0).contains(&gbit) => Ok((gbit * 1000.0).round() as u32),
        _ => Err(format!("{column} is {field:?}, expected Gbit/s from 0.001 to 10000, or nothing")),
    };
    let baseline = mbit(baseline, "baseline_gbps")?;
    let peak = mbit(peak, "peak_gbps")?;
    if peak < baseline || (baseline == 0) != (peak == 0) {
        return Err("peak_gbps is below baseline_gbps, or only one of them is given".into());
    }
    let row = format!(
        "enis: {enis}, ipv4_per_eni: {ipv4_per_eni}, vcpus: {vcpus}, \
         hypervisor: Hypervisor::{hypervisor}, bare_metal: {bare_metal}, \
         baseline: {baseline}, peak: {peak}"
    );
    Ok((name, row))
}
