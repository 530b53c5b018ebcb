//! Hints of errors in the terms of a front end: the command line and the Python package name the same options differently.
//!
//! The messages of errors have only hints that are the same for all front ends, such as those that name a setting of the
//! configuration.

use std::io;

use larder_training::TrainingError;

use crate::{config::ConfigError, offline::OfflineError};

/// A program that shows errors to its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontEnd {
    /// The program `larder`.
    CommandLine,
    /// The Python package.
    Python,
}

// === impl FrontEnd ===

impl FrontEnd {
    /// Returns the hint for an error of the configuration, to append to its message; empty if it has none.
    #[must_use]
    pub fn config_hint(self, error: &ConfigError) -> String {
        let ConfigError::Io { path, source } = error else { return String::new() };
        let inside = path.join("larder.yaml");
        let argument = self.option("--config", "config");
        hint(match source.kind() {
            io::ErrorKind::NotFound => format!(
                "set {argument} to the path of your configuration, or create one with {}",
                self.option("'larder init'", "the command 'larder init'")
            ),
            io::ErrorKind::IsADirectory if inside.is_file() => format!("set {argument} to {}", inside.display()),
            _ => return String::new(),
        })
    }

    /// Returns the hint for an error of a training set, to append to its message; empty if it has none.
    #[must_use]
    pub fn offline_hint(self, error: &OfflineError) -> String {
        hint(match error {
            OfflineError::Config(error) => return self.config_hint(error),
            OfflineError::Training(error) => return self.training_hint(error),
            OfflineError::NoEntityFiles { .. } => format!(
                "write the entity rows to a Parquet file, and build the set with {}",
                self.option("--entities PATH and the options of the first run", "its path as entity_df")
            ),
            OfflineError::NoRows { .. } => {
                format!(
                    "use {}, and give the keys, times and request inputs as entity rows",
                    self.option("'larder training-set'", "get_historical_features")
                )
            }
            _ => return String::new(),
        })
    }

    fn training_hint(self, error: &TrainingError) -> String {
        hint(match error {
            TrainingError::NoTimeColumn { .. } => {
                format!("name the time column with {}", self.option("--time-column", "timestamp_column"))
            }
            TrainingError::NotTimes { column, is_text: true, .. } => {
                let sql = format!("convert the text first, for example in SQL with CAST({column} AS TIMESTAMPTZ)");
                self.option(&sql, "convert the text first, with pandas.to_datetime or polars' str.to_datetime")
                    .to_owned()
            }
            TrainingError::NoTime { .. } | TrainingError::NoKey { .. } => {
                format!("remove these rows, or do not use {}", self.option("--strict", "strict=True"))
            }
            TrainingError::Collision(_) => {
                let full_names = self.option("--full-feature-names", "full_feature_names=True");
                format!("rename the column, or use {full_names}")
            }
            TrainingError::TooManyRows(_) => {
                format!("lower {}, so that the rows are divided into parts", self.option("--memory", "memory"))
            }
            _ => return String::new(),
        })
    }

    fn option<'a>(self, command_line: &'a str, python: &'a str) -> &'a str {
        match self {
            Self::CommandLine => command_line,
            Self::Python => python,
        }
    }
}

fn hint(text: String) -> String {
    format!(". hint: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hints of the package never name options of the command line.
    #[test]
    fn python_hints_name_no_flags() {
        let (column, view, why) = (|| "at".to_owned(), || "stats".to_owned(), || "why".to_owned());
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let errors: [OfflineError; 8] = [
            ConfigError::Io { path: "larder.yaml".into(), source: missing() }.into(),
            TrainingError::NoTimeColumn { column: column(), columns: vec![] }.into(),
            TrainingError::NotTimes { column: column(), why: why(), is_text: true }.into(),
            TrainingError::NoTime { column: column() }.into(),
            TrainingError::NoKey { view: view() }.into(),
            TrainingError::Collision(column()).into(),
            TrainingError::from(larder_training::TooManyRows).into(),
            OfflineError::NoRows { view: view(), why: why() },
        ];
        for error in errors {
            let hints = [FrontEnd::CommandLine, FrontEnd::Python].map(|front_end| front_end.offline_hint(&error));
            assert!(hints.iter().all(|hint| hint.starts_with(". hint: ")), "{error}: {hints:?}");
            assert!(!hints[1].contains("--") && !error.to_string().contains("--"), "{error}: {}", hints[1]);
            assert_ne!(hints[0], hints[1]);
        }
    }
}
