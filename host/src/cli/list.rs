//! `larder list`: prints the served views and services.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::{ConfigArg, output, target::Target};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Also list every feature with its type and description
    #[arg(long, short)]
    features: bool,
    /// Print the catalog as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ListArgs) -> Result<()> {
    let catalog = Target::find_with_plugins(&args.config)?.catalog()?;
    if args.json {
        output::line(&catalog.to_string());
        return Ok(());
    }
    output::line(&format!("project {}\n", text(&catalog["project"])));
    let views: Vec<_> = items(&catalog["feature_views"]).iter().map(view).collect();
    output::table(
        &["FEATURE VIEW", "KEYS", "FEATURES", "ROWS", "SYNCED", "NEWEST EVENT", "TTL", "SOURCE", "TAGS"],
        &views,
    );
    output::line("");
    let derived: Vec<_> = items(&catalog["derived_views"]).iter().map(derived_view).collect();
    if !derived.is_empty() {
        output::table(&["DERIVED VIEW", "PLUGIN", "VERSION", "FEATURES", "READS", "TAGS"], &derived);
        output::line("");
    }
    let service = |service: &Value| {
        vec![
            text(&service["name"]),
            items(&service["features"]).len().to_string(),
            tags(service),
            text(&service["description"]),
        ]
    };
    let services: Vec<_> = items(&catalog["feature_services"]).iter().map(service).collect();
    output::table(&["FEATURE SERVICE", "FEATURES", "TAGS", "DESCRIPTION"], &services);
    let unservable = |kind: &str| catalog["unservable"][kind].as_object().into_iter().flatten();
    for (kind, what) in [("feature_views", "feature view"), ("feature_services", "feature service")] {
        for (name, why) in unservable(kind) {
            output::note(&format!("{what} '{name}' is not served: {}", text(why)));
        }
    }
    for view in items(&catalog["feature_views"]) {
        if let Some(caveat) = view["caveat"].as_str() {
            output::note(&format!("feature view '{}': {caveat}", text(&view["name"])));
        }
    }
    if args.features {
        output::line("");
        let views = items(&catalog["feature_views"]).iter().chain(items(&catalog["derived_views"]));
        let rows: Vec<_> = views.flat_map(features).collect();
        output::table(&["FEATURE", "TYPE", "TAGS", "DESCRIPTION"], &rows);
    }
    Ok(())
}

fn view(view: &Value) -> Vec<String> {
    let age =
        |part: &str| view[part].as_i64().map_or_else(|| "never".to_owned(), |age| format!("{} ago", output::age(age)));
    // The join key of a view without entities is internal: requests do not contain it, so it is not listed.
    let keys = match items(&view["entities"]) {
        [] => "-".to_owned(),
        _ => items(&view["join_keys"]).iter().map(text).collect::<Vec<_>>().join(","),
    };
    vec![
        text(&view["name"]),
        keys,
        items(&view["features"]).len().to_string(),
        output::thousands(view["rows"].as_u64().unwrap_or(0)),
        age("last_success_age_seconds"),
        age("newest_event_age_seconds"),
        view["ttl_seconds"].as_i64().map_or_else(|| "-".to_owned(), output::age),
        view["source"].as_str().unwrap_or("-").to_owned(),
        tags(view),
    ]
}

fn derived_view(view: &Value) -> Vec<String> {
    let read = |input: &Value| match input["from"].as_str() {
        Some("request") => format!("request {}", text(&input["name"])),
        from => from.unwrap_or_default().to_owned(),
    };
    vec![
        text(&view["name"]),
        text(&view["plugin"]),
        view["plugin_version"].as_str().unwrap_or("MISSING").to_owned(),
        items(&view["features"]).len().to_string(),
        reads(items(&view["inputs"]).iter().map(read)),
        tags(view),
    ]
}

/// Formats the inputs of a derived view, each once. Truncates a long list, because a view of a Feast repository may
/// read all features of its sources.
fn reads(inputs: impl Iterator<Item = String>) -> String {
    const WIDTH_MAX: usize = 100;
    let mut all: Vec<String> = Vec::new();
    for input in inputs {
        if !all.contains(&input) {
            all.push(input);
        }
    }
    let mut width = 0;
    let fits = |input: &&String| {
        width += input.chars().count() + ", ".len();
        width <= WIDTH_MAX
    };
    // The first input is shown even if it exceeds the width.
    let shown = all.iter().take_while(fits).count().max(1).min(all.len());
    let text = all[..shown].join(", ");
    match all.len() - shown {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn features(view: &Value) -> Vec<Vec<String>> {
    let name = text(&view["name"]);
    let feature = |feature: &Value| {
        vec![
            format!("{name}:{}", text(&feature["name"])),
            text(&feature["type"]),
            tags(feature),
            text(&feature["description"]),
        ]
    };
    items(&view["features"]).iter().map(feature).collect()
}

fn tags(of: &Value) -> String {
    let tags = of["tags"].as_object().into_iter().flatten();
    tags.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
}

/// Returns the items of a list in the catalog. Returns no items if the list is absent.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_inputs_are_truncated() {
        let read = |inputs: &[&str]| reads(inputs.iter().map(|input| (*input).to_owned()));
        assert_eq!(read(&[]), "");
        assert_eq!(read(&["a:b", "request c", "a:b"]), "a:b, request c");
        let [half, whole] = [50, 120].map(|len| "a".repeat(len));
        assert_eq!(read(&[&half, "b:b", &half.to_uppercase(), "c:d"]), format!("{half}, b:b and 2 more"));
        assert_eq!(read(&[&whole, "b:b"]), format!("{whole} and 1 more"));
    }
}
