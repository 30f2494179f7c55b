// SPDX-License-Identifier: Apache-2.0
//! Any text as a rate, a limit or a burst: what is read is printed, and what
//! is printed is read as the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use settings_model::{Burst, Limit, Rate};

fuzz_target!(|text: &str| {
    round_trip::<Rate>(text);
    round_trip::<Limit>(text);
    round_trip::<Burst>(text);
});

fn round_trip<T: FromStr<Err: Display> + Display + Debug + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(quantity) => {
            let printed = quantity.to_string();
            let again = printed.parse::<T>().map_err(|error| error.to_string());
            assert_eq!(again.as_ref(), Ok(&quantity), "{text:?} is printed as {printed:?}");
            assert_eq!(again.map(|again| again.to_string()), Ok(printed), "not canonical");
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
}
