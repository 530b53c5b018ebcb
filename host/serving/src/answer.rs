//! An answer: the rows that were looked up, and the values and statuses of its cells.

use std::sync::Arc;

use larder_model::{
    codec::{RowHeader, RowText, RowView},
    model::{Micros, ValueRef},
};
use larder_plugin_host::{FailedRow, Output, Outputs};
use larder_store::{Row, RowMemory};
use smallvec::SmallVec;

pub use super::keys::EchoedValue;
use super::{
    ColumnFrom, Plan, RequestError, ResponseBudget, TtlPolicy,
    convert::ConvertedRow,
    keys::EchoedColumn,
    plan::{RowPlan, ViewRead},
};

/// The answer to a request. Encoders read it column by column.
#[derive(Debug)]
pub struct Answer<'r> {
    /// The plan of the request, which has the names and the order of the columns.
    pub plan: Arc<Plan>,
    /// The number of entity rows; 1 if the request has no columns.
    pub rows: usize,
    /// The time of the lookup, which decides whether rows are expired.
    pub now: Micros,
    /// The entity columns, in the order of [`Plan::entity_columns`].
    pub(super) entities: SmallVec<[EchoedColumn<'r>; 1]>,
    /// The results of lookups. Row `i` of read `r` is at index `r * rows + i`.
    pub(super) found: SmallVec<[LookupResult; 4]>,
    /// The results of the derived views, in the order of [`Plan::steps`].
    pub(super) derived: Vec<Derived>,
    pub(super) ttl: TtlPolicy,
}

/// The result of a derived view.
#[derive(Debug)]
pub(super) enum Derived {
    /// The outputs of the plugin. In rows that failed, the view's fallback is served.
    Outputs(Outputs),
    /// The plugin is not loaded. The view's fallback is served in all rows.
    NoPlugin,
}

/// The result of the lookup of one row.
#[derive(Debug)]
pub(super) enum LookupResult {
    Nothing,
    Row {
        row: Row,
        /// The index of the row's schema in [`ViewRead::schemas`].
        schema: usize,
        event_time: Micros,
        expired: bool,
    },
    /// A row that was stored before a feature's type changed.
    Converted(Box<ConvertedRow>),
}

/// Feast's status of a value (`feast.serving.FieldStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The row has the feature, or a plugin computed it. The value may be null.
    Present,
    /// No row was found, or the row does not have the feature or cannot be read.
    NotFound,
    /// A row exists, but it is older than the view's `ttl`.
    OutsideMaxAge,
    /// The plugin that computes the value failed for this row, or is not loaded. The value is the view's fallback.
    Invalid,
}

/// One cell of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell<'a> {
    /// The value; null if no value was found.
    pub value: ValueRef<'a>,
    /// The status of the value.
    pub status: Status,
}

/// A column of an answer, which is read row by row.
#[derive(Clone, Copy, Debug)]
enum Column<'a> {
    Stored {
        /// The lookup result of each row.
        found: &'a [LookupResult],
        read: &'a ViewRead,
        feature: usize,
        ttl: TtlPolicy,
    },
    Computed(Output<'a>),
    /// A derived view some of whose rows could not be computed, and its fallback.
    PartlyComputed(Output<'a>, &'a Outputs, ValueRef<'a>),
    /// The fallback of a derived view without a plugin.
    NoPlugin(ValueRef<'a>),
}

/// The rows of one read as text. Encoders copy this text instead of formatting the values. It is available only if all
/// found rows are cached as text.
#[derive(Debug)]
pub struct ReadText<'a> {
    rows: SmallVec<[TextRow<'a>; 1]>,
    /// The fields of the rows; `None` if no row was found, so all values are null.
    plan: Option<&'a RowPlan>,
    /// The sums of all rows' bounds, which determine the space for each field (see [`RowText::add_bounds`]). Empty for
    /// a single row, whose own bounds are used.
    bounds: SmallVec<[u32; 4]>,
    /// The number of rows without text.
    nulls: usize,
}

/// A row as text, and the status of its values. The text is `None` if the values are null: no row was found, or
/// [`TtlPolicy::Null`] hides an expired row.
type TextRow<'a> = (Option<RowText<'a>>, Status);

/// A null with its leading comma.
const NULL: &[u8] = b",null";

// === impl ReadText ===

impl ReadText<'_> {
    /// Appends the values of a feature in all rows as JSON, separated by commas, and reserves `more` bytes for the
    /// output after them. Returns false and appends nothing if the rows do not have the feature.
    ///
    /// # Errors
    /// Errors of [`ResponseBudget::reserve`].
    pub fn append_values(
        &self,
        feature: usize,
        more: usize,
        out: &mut Vec<u8>,
        budget: &mut ResponseBudget,
    ) -> Result<bool, RequestError> {
        let field = match self.plan {
            Some(plan) => plan.fields[feature],
            // No row was found, so all values are null.
            None => Some(0),
        };
        let Some(field) = field else { return Ok(false) };
        if let [(Some(text), _)] = &*self.rows {
            let value = text.value(field);
            budget.reserve(out, 0, value.len() + more)?;
            out.extend_from_slice(value);
            return Ok(true);
        }
        let start = out.len();
        let width = RowText::width_of_sums(&self.bounds, field) + self.nulls * NULL.len();
        budget.reserve(out, 0, width + RowText::COPY_BYTES + more)?;
        // The first value has no comma.
        let end = start + width.saturating_sub(1);
        // With these extra bytes, the last values are copied as fast as the others.
        out.resize(end + RowText::COPY_BYTES, b' ');
        self.copy_values(field, out, start);
        out.truncate(end);
        Ok(true)
    }

    /// Writes the values of a field in all rows, starting at the offset `at` of `out`.
    fn copy_values(&self, field: usize, out: &mut [u8], mut at: usize) {
        for (row, (text, _)) in self.rows.iter().enumerate() {
            at += match text {
                Some(text) => text.copy(field, row > 0, out, at),
                None => {
                    let null = &NULL[usize::from(row == 0)..];
                    out[at..at + null.len()].copy_from_slice(null);
                    null.len()
                }
            };
        }
    }

    /// Computes `bounds` and `nulls`.
    fn sum_up(&mut self) {
        for (text, _) in &self.rows {
            match text {
                None => self.nulls += 1,
                Some(_) if self.rows.len() == 1 => {}
                Some(text) => {
                    self.bounds.resize(text.bound_count(), 0);
                    text.add_bounds(&mut self.bounds);
                }
            }
        }
    }

    /// Returns the status of each row, which is the same for all of its features.
    pub fn statuses(&self) -> impl Iterator<Item = Status> {
        self.rows.iter().map(|(_, status)| *status)
    }

    /// Appends a row's event time, with or without a leading comma. Returns false and appends nothing if the row has no
    /// text.
    #[must_use]
    pub fn append_event_time(&self, row: usize, with_comma: bool, out: &mut Vec<u8>) -> bool {
        let Some((Some(text), _)) = self.rows.get(row) else { return false };
        text.append_event_time(with_comma, out);
        true
    }
}

// === impl Status ===

impl Status {
    /// All statuses.
    pub const ALL: [Self; 4] = [Self::Present, Self::NotFound, Self::OutsideMaxAge, Self::Invalid];

    /// Returns Feast's name of the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "PRESENT",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Self::Invalid => "INVALID",
        }
    }
}

// === impl Answer ===

impl<'r> Answer<'r> {
    /// Returns an answer that does not borrow from the request, with only these ascending rows, or with all rows if `rows` is
    /// `None`. Moves the rows of features, and copies the entities.
    pub(super) fn into_static(self, rows: Option<&[usize]>) -> Answer<'static> {
        let owned = |column: &EchoedColumn<'r>| match rows {
            None => column.iter().map(EchoedValue::to_static).collect(),
            Some(rows) => rows.iter().map(|row| column[*row].to_static()).collect(),
        };
        let entities = self.entities.iter().map(owned).collect();
        let Self { plan, now, ttl, rows: count, mut found, derived, .. } = self;
        let Some(rows) = rows else {
            return Answer { plan, rows: count, now, entities, found, derived, ttl };
        };
        let index = |read: usize, row: &usize| read * count + row;
        let found = (0..plan.reads.len())
            .flat_map(|read| rows.iter().map(move |row| index(read, row)))
            .map(|index| std::mem::replace(&mut found[index], LookupResult::Nothing))
            .collect();
        let select = |derived| match derived {
            Derived::Outputs(outputs) => Derived::Outputs(outputs.select(rows)),
            Derived::NoPlugin => Derived::NoPlugin,
        };
        let derived = derived.into_iter().map(select).collect();
        Answer { plan, rows: rows.len(), now, entities, found, derived, ttl }
    }

    /// Returns the approximate memory in bytes that these rows keep in use, or all rows if `rows` is `None`. Counts a block of
    /// rows again for each row that uses it, unless the rows are consecutive.
    pub(super) fn memory(&self, rows: Option<&[usize]>) -> usize {
        let count = rows.map_or(self.rows, <[usize]>::len);
        let each = |row: usize, last: &mut Option<RowMemory>| {
            let found = (0..self.plan.reads.len()).map(|read| &self.found[read * self.rows + row]);
            let memory = found.map(|found| size_of::<LookupResult>() + found.memory(last)).sum::<usize>();
            memory + self.entities.iter().map(|column| column[row].memory()).sum::<usize>()
        };
        let mut last = None;
        let found: usize = match rows {
            None => (0..self.rows).map(|row| each(row, &mut last)).sum(),
            Some(rows) => rows.iter().map(|row| each(*row, &mut last)).sum(),
        };
        let derived = self.derived.iter().map(|derived| match derived {
            Derived::Outputs(outputs) => outputs.memory() / self.rows.max(1) * count,
            Derived::NoPlugin => 0,
        });
        size_of::<Self>() + found + derived.sum::<usize>()
    }
}

impl Answer<'_> {
    /// Returns how expired values were answered.
    #[must_use]
    pub fn ttl(&self) -> TtlPolicy {
        self.ttl
    }

    /// Returns the values of an entity column.
    #[must_use]
    pub fn entity_column(&self, index: usize) -> &[EchoedValue<'_>] {
        &self.entities[index]
    }

    /// Returns the event time of a row of a read, if the row was found.
    #[must_use]
    pub fn event_time(&self, read: usize, row: usize) -> Option<Micros> {
        match &self.found[read * self.rows + row] {
            LookupResult::Nothing => None,
            LookupResult::Row { event_time, .. } => Some(*event_time),
            LookupResult::Converted(row) => Some(row.event_time),
        }
    }

    /// Returns the rows of a read as text. Returns `None` if a found row is not cached as text or has converted values,
    /// or if the found rows have different schemas.
    #[must_use]
    pub fn text(&self, read: usize) -> Option<ReadText<'_>> {
        let mut first_schema = None;
        let rows = self.found[read * self.rows..][..self.rows].iter().map(|found| {
            let (row, schema, expired) = match found {
                LookupResult::Row { row, schema, expired, .. } => (row, schema, expired),
                LookupResult::Nothing => return Some((None, Status::NotFound)),
                // If a converted row has cached text, the text has values of the stored types.
                LookupResult::Converted(_) => return None,
            };
            let text = row.text().filter(|_| *first_schema.get_or_insert(*schema) == *schema)?;
            Some(match (expired, self.ttl) {
                (true, TtlPolicy::Null) => (None, Status::OutsideMaxAge),
                (true, TtlPolicy::Mark) => (Some(text), Status::OutsideMaxAge),
                _ => (Some(text), Status::Present),
            })
        });
        let rows = rows.collect::<Option<SmallVec<[TextRow<'_>; 1]>>>()?;
        let plan = first_schema.map(|schema| &self.plan.reads[read].schemas[schema]);
        let mut text = ReadText { rows, plan, bounds: SmallVec::new(), nulls: 0 };
        text.sum_up();
        Some(text)
    }

    /// Returns the cells of a feature column, one for each row.
    pub fn cells(&self, from: ColumnFrom) -> impl ExactSizeIterator<Item = Cell<'_>> + Clone {
        let column = match from {
            ColumnFrom::Read { read, feature } => {
                let found = &self.found[read * self.rows..][..self.rows];
                Column::Stored { found, read: &self.plan.reads[read], feature, ttl: self.ttl }
            }
            ColumnFrom::Step { step, feature } => {
                let fallback = || self.plan.steps[step].fallback(feature);
                match (self.output(from), self.derived.get(step)) {
                    (Some(output), Some(Derived::Outputs(all))) if !all.failed().is_empty() => {
                        Column::PartlyComputed(output, all, fallback())
                    }
                    (Some(output), _) => Column::Computed(output),
                    (None, _) => Column::NoPlugin(fallback()),
                }
            }
        };
        (0..self.rows).map(move |row| column.cell(row))
    }

    /// Returns the column of a derived feature, if it was computed.
    pub(super) fn output(&self, from: ColumnFrom) -> Option<Output<'_>> {
        let ColumnFrom::Step { step, feature } = from else { return None };
        let transform = self.plan.steps[step].transform.as_ref()?;
        match self.derived.get(step)? {
            Derived::Outputs(outputs) => Some(outputs.output(transform.outputs()[feature])),
            Derived::NoPlugin => None,
        }
    }

    /// Returns the rows of a derived feature that could not be computed, in ascending order.
    pub(super) fn failed_rows(&self, from: ColumnFrom) -> &[FailedRow] {
        let ColumnFrom::Step { step, .. } = from else { return &[] };
        match self.derived.get(step) {
            Some(Derived::Outputs(outputs)) => outputs.failed(),
            _ => &[],
        }
    }
}

// === impl Column ===

impl<'a> Column<'a> {
    #[inline]
    fn cell(self, row: usize) -> Cell<'a> {
        match self {
            Self::Stored { found, read, feature, ttl } => found[row].cell(read, feature, ttl),
            Self::Computed(output) => Cell { value: output.get(row), status: Status::Present },
            Self::PartlyComputed(_, all, fallback) if all.is_failed(row) => {
                Cell { value: fallback, status: Status::Invalid }
            }
            Self::PartlyComputed(output, ..) => Cell { value: output.get(row), status: Status::Present },
            Self::NoPlugin(value) => Cell { value, status: Status::Invalid },
        }
    }
}

// === impl LookupResult ===

impl LookupResult {
    /// Determines the schema of a row and whether the row is expired, and converts values whose type changed. A row
    /// that cannot be read, whose schema is unknown, or whose own expiry time has passed is treated as not found.
    pub(super) fn of(row: Option<Row>, read: &ViewRead, now: Micros) -> Self {
        let Some(row) = row else { return Self::Nothing };
        let Ok(header) = RowHeader::read(&row) else { return Self::Nothing };
        match read.schemas.first() {
            Some(current) if current.fingerprint == header.fingerprint => {
                Self::of_schema(row, 0, current, &header, read, now)
            }
            _ => Self::of_earlier(row, &header, read, now),
        }
    }

    #[inline(always)]
    fn of_schema(row: Row, schema: usize, plan: &RowPlan, header: &RowHeader, read: &ViewRead, now: Micros) -> Self {
        if let Some(field) = plan.expiry {
            let expiry = RowView::new(&plan.schema, &row).and_then(|view| view.get(field));
            // A row whose own expiry time has passed is treated as deleted, because DynamoDB may delete it only days
            // later.
            if matches!(expiry, Ok(ValueRef::Int64(expiry)) if expiry <= now) {
                return Self::Nothing;
            }
        }
        let expired = read.ttl.is_some_and(|ttl| now.saturating_sub(header.event_time) > ttl);
        Self::Row { row, schema, event_time: header.event_time, expired }
    }

    /// Handles a row that was stored before the view's features changed, and converts values whose type changed.
    #[cold]
    fn of_earlier(row: Row, header: &RowHeader, read: &ViewRead, now: Micros) -> Self {
        let is = |plan: &RowPlan| plan.fingerprint == header.fingerprint;
        let Some(schema) = read.schemas.iter().position(is) else { return Self::Nothing };
        let plan = &read.schemas[schema];
        let found = Self::of_schema(row, schema, plan, header, read, now);
        let (Some(conversion), Self::Row { row, event_time, expired, .. }) = (&plan.conversion, &found) else {
            return found;
        };
        let Some(converted) = conversion.convert(&plan.schema, row) else { return Self::Nothing };
        let converted = ConvertedRow::new(converted, schema, *event_time, *expired);
        read.counters.note_converted(converted.lost.len());
        Self::Converted(Box::new(converted))
    }

    /// Returns the memory that the row keeps in use, in bytes; 0 if it is in the block `last`. Sets `last` to its block.
    fn memory(&self, last: &mut Option<RowMemory>) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Row { row, .. } => {
                let memory = row.memory();
                if last.replace(memory) == Some(memory) { 0 } else { memory.bytes }
            }
            Self::Converted(row) => size_of::<ConvertedRow>() + row.memory(),
        }
    }

    /// Returns the cell of a feature of the row.
    fn cell<'a>(&'a self, read: &'a ViewRead, feature: usize, ttl: TtlPolicy) -> Cell<'a> {
        let Self::Row { row, schema, expired, .. } = self else { return self.other_cell(read, feature, ttl) };
        let plan = &read.schemas[*schema];
        let Some(field) = plan.fields[feature] else { return Cell::NOTHING };
        // A row that passed `LookupResult::of` has this schema. A damaged field is treated as missing, and its value is
        // never guessed.
        match RowView::new(&plan.schema, row).and_then(|view| view.get(field)) {
            Ok(value) => Cell::of(value, *expired, ttl),
            Err(_) => Cell::NOTHING,
        }
    }

    /// Returns the cell of a feature of a converted row, or of a row that was not found.
    #[cold]
    fn other_cell<'a>(&'a self, read: &'a ViewRead, feature: usize, ttl: TtlPolicy) -> Cell<'a> {
        let Self::Converted(row) = self else { return Cell::NOTHING };
        let value = read.schemas[row.schema].conversion.as_ref().and_then(|plan| plan.value(row, feature));
        value.map_or(Cell::NOTHING, |value| Cell::of(value, row.expired, ttl))
    }
}

// === impl Cell ===

impl<'a> Cell<'a> {
    const NOTHING: Self = Self { value: ValueRef::Null, status: Status::NotFound };

    #[inline]
    fn of(value: ValueRef<'a>, expired: bool, ttl: TtlPolicy) -> Self {
        match (expired, ttl) {
            (true, TtlPolicy::Mark) => Self { value, status: Status::OutsideMaxAge },
            (true, TtlPolicy::Null) => Self { value: ValueRef::Null, status: Status::OutsideMaxAge },
            _ => Self { value, status: Status::Present },
        }
    }
}
