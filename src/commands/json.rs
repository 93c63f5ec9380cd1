//! JSON documents whose keys keep the order of the code, so that people can compare them with those of runc.
//!
//! Not for: reading JSON, and not for data that has a type of its own.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Json {
    /// true or false.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object; members with the value `None` are not written.
    Object(Vec<(&'static str, Option<Json>)>),
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => serializer.collect_seq(values),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in members {
                    if let Some(value) = value {
                        map.serialize_entry(key, value)?;
                    }
                }
                map.end()
            }
        }
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Json {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Vec<Json>> for Json {
    fn from(values: Vec<Json>) -> Self {
        Self::List(values)
    }
}

impl<const N: usize> From<[(&'static str, Json); N]> for Json {
    fn from(members: [(&'static str, Json); N]) -> Self {
        Self::Object(members.map(|(key, value)| (key, Some(value))).to_vec())
    }
}

/// An object; members with the value `None` are not written.
pub fn object<const N: usize>(members: [(&'static str, Option<Json>); N]) -> Json {
    Json::Object(members.to_vec())
}

/// An array of strings.
pub fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> Json {
    Json::List(values.into_iter().map(Json::from).collect())
}

/// The text of `value`, each level indented by `indent`.
pub fn pretty(value: &impl Serialize, indent: &str) -> serde_json::Result<Vec<u8>> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut text = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    Ok(text)
}
