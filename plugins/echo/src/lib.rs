//! A plugin that returns its inputs. For tests of the host: it shows which values a plugin gets. Never for production.

use larder_plugin::{Fault, Inputs, List, Outputs, plugin};

/// Inputs of the types that other test plugins do not read.
#[derive(Debug, Inputs)]
pub struct Given<'a> {
    /// Any text. If it is `fail`, the row fails.
    pub text: Option<&'a str>,
    /// Numbers that are never null.
    pub numbers: Option<&'a [f64]>,
    /// Numbers that may be null.
    pub items: Option<List<'a, Option<f64>>>,
}

/// The inputs. For the numbers, only their sum is returned, because the size of a result is limited.
#[derive(Debug, Outputs)]
pub struct Returned<'a> {
    /// The text.
    pub text: Option<&'a str>,
    /// The sum of `numbers`.
    pub sum: Option<f64>,
    /// The items.
    pub items: Option<Vec<Option<f64>>>,
}

/// Returns its inputs.
#[plugin(name = "echo", version = "1.0.0")]
pub fn echo(given: Given<'_>) -> Result<Returned<'_>, Fault> {
    if given.text == Some("fail") {
        return Err(Fault::new("the text is 'fail'"));
    }
    Ok(Returned {
        text: given.text,
        sum: given.numbers.map(|numbers| numbers.iter().sum()),
        items: given.items.map(|items| items.into_iter().collect()),
    })
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing::run};

    #[test]
    fn inputs_are_returned() {
        let table = run::<super::echo>(rows![
            { text: "a", numbers: [1.0, 2.0], items: [Some(1.5), None] },
            { text: "fail", numbers: [1.0] },
            { text: "b" },
        ]);
        assert_eq!((&table["text"][0], &table["sum"][0]), (&"a".into(), &3.0.into()));
        assert_eq!(table["items"][0], [Some(1.5), None]);
        assert!(table["items"][2].is_null());
        assert_eq!(table.failed(), [(1, "the text is 'fail'")]);
    }
}
