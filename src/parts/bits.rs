//! Lists of numbers such as `0-3,7` (cpuset(7), "List format"): CPUs for `scheduling`, NUMA nodes for `memory_policy`.
//!
//! Not for: the cpuset of a cgroup, which gets its list as the configuration writes it.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::ffi::c_ulong;

/// A set of CPU or node numbers. Bit `n` stands for number `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits(pub(crate) Vec<c_ulong>);

impl Bits {
    /// Parses a list such as `0-3,7`; spaces and empty elements are allowed.
    ///
    /// # Errors
    /// An element is neither a number nor a range, or a number is above `last`.
    pub fn parse(text: &str, last: u32) -> Result<Self> {
        let mut bits = Vec::new();
        let number = |text: &str| -> Result<u32> {
            ensure!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text:?} is not a number");
            let value: u64 = text.parse().with_context(|| format!("{text:?} is not a number"))?;
            let small = u32::try_from(value).ok().filter(|value| *value <= last);
            small.with_context(|| format!("values larger than {last} are not supported"))
        };
        for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let (first, end) = match element.split_once('-') {
                Some((first, end)) => (number(first)?, number(end)?),
                None => (number(element)?, number(element)?),
            };
            ensure!(first <= end, "invalid range: {element}");
            for value in first..=end {
                let word = (value / c_ulong::BITS) as usize;
                if bits.len() <= word {
                    bits.resize(word + 1, 0);
                }
                if let Some(word) = bits.get_mut(word) {
                    *word |= 1 << (value % c_ulong::BITS);
                }
            }
        }
        Ok(Self(bits))
    }

    /// How many numbers there are.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// Prints a hexadecimal mask, as runc's debug log does.
impl std::fmt::Display for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits: String = self
            .0
            .iter()
            .rev()
            .map(|word| format!("{word:0width$x}", width = c_ulong::BITS as usize / 4))
            .collect();
        let digits = digits.trim_start_matches('0');
        write!(f, "0x{}", if digits.is_empty() { "0" } else { digits })
    }
}

impl Serialize for Bits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_as_the_kernel_writes_them() {
        let mask = |text| Bits::parse(text, 127).map(|bits| bits.to_string());
        for (text, wanted) in
            [("0", "0x1"), ("0-1", "0x3"), ("1, 3,", "0xa"), ("64", "0x10000000000000000"), ("", "0x0")]
        {
            assert_eq!(mask(text).unwrap(), wanted, "{text:?}");
        }
        for (text, wanted) in [
            ("128", "values larger than 127 are not supported"),
            ("0-9876543210", "values larger than 127 are not supported"),
            ("3-1", "invalid range: 3-1"),
            ("a", "\"a\" is not a number"),
            ("+1", "\"+1\" is not a number"),
            ("1-", "\"\" is not a number"),
        ] {
            assert_eq!(mask(text).unwrap_err().to_string(), wanted, "{text:?}");
        }
    }
}
