//! Logs the answers to requests for feature services.
//!
//! A plan has the sampling of its service, if the service is logged, so all other requests cost one comparison. The rows of
//! a sampled answer are moved to the [`AnswerQueue`], and not copied; only the keys and the request data are copied. Another
//! thread converts the values.

use std::sync::Arc;

use super::{Answer, AnswerQueue, EntityValue, LoggedAnswer, LoggedService, OnlineRequest, logged::Sampled};

/// Adds the sampled rows of an answer to the queue, if its service is logged.
#[inline]
pub(super) fn log(answer: Answer<'_>, request: &OnlineRequest<'_>, queue: Option<&Arc<AnswerQueue>>) {
    let (Some(sampling), Some(queue)) = (&answer.plan.sampling, queue) else { return };
    if let Some(sampled) = sampling.sample(&answer.entities, answer.rows) {
        let service = Arc::clone(&sampling.service);
        push(service, answer, request, &sampled, queue);
    }
}

#[cold]
fn push(
    service: Arc<LoggedService>,
    answer: Answer<'_>,
    request: &OnlineRequest<'_>,
    sampled: &Sampled,
    queue: &Arc<AnswerQueue>,
) {
    let rows = if let Sampled::Rows(rows) = sampled { Some(&**rows) } else { None };
    let plan = Arc::clone(&answer.plan);
    let columns = || plan.request_inputs.iter().map(|input| &request.entities[input.request_index].1);
    let select = |column: &Vec<EntityValue<'_>>| match rows {
        None => column.iter().map(EntityValue::to_static).collect(),
        Some(rows) => rows.iter().map(|row| column[*row].to_static()).collect(),
    };
    let bytes_of = |column: &Vec<EntityValue<'_>>| match rows {
        None => column.iter().map(EntityValue::memory).sum::<usize>(),
        Some(rows) => rows.iter().map(|row| column[*row].memory()).sum(),
    };
    let bytes = size_of::<LoggedAnswer>() + answer.memory(rows) + columns().map(bytes_of).sum::<usize>();
    let Some(reservation) = queue.reserve(bytes, rows.map_or(answer.rows, <[usize]>::len)) else { return };
    let request_data = columns().map(select).collect();
    queue.push(LoggedAnswer { service, answer: answer.into_static(rows), request_data, _reservation: reservation });
}
