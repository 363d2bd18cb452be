//! What is wrong with a configuration, collected rather than stopped at.
//!
//! An operator who fixes a file wants to hear of everything at once. Each finding names the key,
//! says what is wrong with its value and what would be right.

use std::fmt;

/// How much a [`Finding`] weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The program does not start with it.
    Error,
    /// The program starts, and part of it will not do what the file seems to ask for.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// The key, dotted (`winglet.timeouts.head`), or the file or flag that it is about.
    pub key: String,
    /// What is wrong and what would be right, in lower case.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Everything that was found, in the order of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Notes something that the program does not start with.
    pub fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Error, key.into(), message.into());
    }

    /// Notes something that the operator ought to know.
    pub fn warning(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Warning, key.into(), message.into());
    }

    /// Whether any of it is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The findings, in the order of the checks.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    fn push(&mut self, severity: Severity, key: String, message: String) {
        self.0.push(Finding { severity, key, message });
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One finding a line, each after its severity.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {finding}", finding.severity)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_line_with_severity_and_key() {
        let mut findings = Findings::default();
        assert!(findings.is_empty());
        findings.warning("system.data", "does not exist");
        assert!(!findings.has_errors());
        findings.error("token", "is empty");
        assert!(findings.has_errors());
        assert_eq!(
            findings.to_string(),
            "warning: system.data: does not exist\nerror: token: is empty"
        );
        assert_eq!(findings.iter().count(), 2);
        assert_eq!(
            findings.into_iter().map(|finding| finding.key).collect::<Vec<_>>(),
            ["system.data", "token"]
        );
    }
}
