//! `embedding_similarity`: finds the nearest of several labeled embeddings to the one in the request.
//!
//! The example shows lists and strings as inputs and outputs. Results are the same on every machine: the square root is
//! a WebAssembly instruction, and functions that are not instructions, such as logarithms, are compiled into the
//! component.

use larder_plugin::{Inputs, List, Outputs, plugin};

/// A row of labeled embeddings, and the query.
#[derive(Debug, Inputs)]
pub struct Candidates<'a> {
    /// The embedding in the request.
    pub query: Option<&'a [f32]>,
    /// The embeddings of the row, concatenated. Each is as long as the query.
    pub embeddings: Option<&'a [f32]>,
    /// A label for each embedding.
    pub labels: Option<List<'a, &'a str>>,
}

/// The result of the search.
#[derive(Debug, Default, PartialEq, Outputs)]
pub struct Found<'a> {
    /// The label of the nearest embedding.
    pub nearest: Option<&'a str>,
    /// Its cosine similarity to the query, from -1 to 1.
    pub similarity: Option<f64>,
    /// All labels, the nearest first.
    pub ranking: Option<Vec<&'a str>>,
    /// The similarities of all embeddings, in the same order as the ranking.
    pub similarities: Option<Vec<f64>>,
}

/// Ranks labeled embeddings by their cosine similarity to a query.
#[plugin(name = "embedding_similarity", version = "1.0.0")]
pub fn rank<'a>(row: Candidates<'a>) -> Found<'a> {
    let (Some(query), Some(embeddings), Some(labels)) = (row.query, row.embeddings, row.labels) else {
        return Found::default();
    };
    if query.is_empty() || embeddings.len() != query.len() * labels.len() {
        return Found::default();
    }
    let scores = embeddings.chunks_exact(query.len()).map(|embedding| cosine(query, embedding));
    let mut ranked: Vec<(f64, &str)> = scores.zip(labels).collect();
    // The sort is stable, so embeddings with equal similarities keep the order of the inputs.
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    Found {
        nearest: ranked.first().map(|(_, label)| *label),
        similarity: ranked.first().map(|(score, _)| *score),
        ranking: Some(ranked.iter().map(|(_, label)| *label).collect()),
        similarities: Some(ranked.iter().map(|(score, _)| *score).collect()),
    }
}

/// Returns the cosine similarity of two vectors. Returns 0 if one of them has length 0.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut dot, mut left, mut right) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        dot += a * b;
        left += a * a;
        right += b * b;
    }
    let lengths = f64::sqrt(left) * f64::sqrt(right);
    if lengths > 0.0 { dot / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing::run};

    use super::*;

    #[test]
    fn nearest_is_first_and_mismatches_are_null() {
        let table = run::<super::rank>(rows![
            { query: [1.0, 0.0], embeddings: [0.0, 2.0, 3.0, 0.0], labels: ["up", "right"] },
            { query: [1.0], embeddings: [1.0, 2.0], labels: ["alone"] },
            { embeddings: [1.0], labels: ["without a query"] },
            { query: [0.0], embeddings: [1.0, 2.0], labels: ["first", "second"] },
        ]);
        assert_eq!((&table["nearest"][0], &table["similarity"][0]), (&"right".into(), &1.0.into()));
        assert_eq!(table["ranking"][0], ["right", "up"]);
        assert_eq!(table["similarities"][0], [1.0, 0.0]);
        assert!(table["nearest"][1].is_null(), "two numbers for one label of length one");
        assert!(table["ranking"][2].is_null());
        assert_eq!(table["ranking"][3], ["first", "second"], "all scores are 0, so the order stays");
    }

    #[test]
    fn similarity_ignores_lengths_of_vectors() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[-3.0, 0.0]), -1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}
