//! Lookups over HTTP.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use larder_client::{Address, Client, Request, Response, Route, Settings, TlsFiles};
use pyo3::{
    Bound, Py, PyAny, PyErr, PyResult, Python, pyclass, pymethods,
    types::{PyBytes, PyDict, PyList},
};

use crate::{
    arrow_table::ArrowTable,
    decode::{decode_any, decode_columns},
    encode::encode_entities,
    errors::{ErrorClass, client_error, status_error},
};

/// A client of a server's HTTP listener. Threads may share it.
#[pyclass(frozen, module = "larder._native")]
#[derive(Debug)]
pub(crate) struct OnlineClient {
    client: Client,
    timeout: Duration,
}

/// The names, values, statuses and event times of the columns of a response, why rows could not be fetched, and the body.
type DecodedColumns<'py> = (
    Bound<'py, PyList>,
    Bound<'py, PyList>,
    Bound<'py, PyList>,
    Bound<'py, PyList>,
    Option<String>,
    Option<Bound<'py, PyBytes>>,
);

/// The estimated size of an encoded value in a request, in bytes.
const REQUEST_BYTES: usize = 512;

impl OnlineClient {
    /// Sends a request without holding the interpreter, and returns the response if its status is 200.
    fn call(&self, py: Python<'_>, route: Route, body: &[u8], timeout: Option<f64>) -> PyResult<Response> {
        let timeout = timeout.map_or(Ok(self.timeout), |seconds| duration(py, ErrorClass::Request, seconds))?;
        let raised: Mutex<Option<PyErr>> = Mutex::new(None);
        let result = py.detach(|| {
            // Signal handlers of Python, such as the one for Ctrl-C, run in the main thread only when it checks for signals.
            let interrupted = || match Python::try_attach(|py| py.check_signals()) {
                Some(Ok(())) => false,
                Some(Err(error)) => {
                    *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    true
                }
                // The interpreter is ending.
                None => true,
            };
            self.client.call(Request { route, body }, timeout, &interrupted)
        });
        let raised = raised.into_inner().unwrap_or_else(PoisonError::into_inner);
        let response = result.map_err(|error| client_error(py, &error, raised))?;
        if response.status == 200 { Ok(response) } else { Err(status_error(py, response.status, &response.body)) }
    }
}

/// Returns the body of a request: `start` is the JSON object without its end, up to the value of `entities`.
fn request_body(start: &[u8], entities: &Bound<'_, PyDict>) -> PyResult<Vec<u8>> {
    let mut body = Vec::with_capacity(start.len() + REQUEST_BYTES);
    body.extend_from_slice(start);
    encode_entities(&mut body, entities)?;
    body.push(b'}');
    Ok(body)
}

fn duration(py: Python<'_>, class: ErrorClass, seconds: f64) -> PyResult<Duration> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| class.error(py, format!("timeout: {seconds} is not a positive number of seconds")))
}

#[pymethods]
impl OnlineClient {
    #[new]
    #[pyo3(signature = (url, token, timeout, ca, identity, connect_retries, max_response_bytes))]
    #[expect(clippy::too_many_arguments, reason = "each argument is a setting of the Python class")]
    fn new(
        py: Python<'_>,
        url: &str,
        token: Option<String>,
        timeout: f64,
        ca: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
        connect_retries: u32,
        max_response_bytes: usize,
    ) -> PyResult<Self> {
        let client = Address::parse(url).and_then(|address| {
            let tls = TlsFiles { ca, identity };
            Client::new(Settings { address, token, tls, connect_retries, response_bytes_max: max_response_bytes })
        });
        let client = client.map_err(|error| client_error(py, &error, None))?;
        Ok(Self { client, timeout: duration(py, ErrorClass::Config, timeout)? })
    }

    /// Looks up features, and returns the columns of the response as lists. `keep_body` is whether to return the body, too.
    fn lookup<'py>(
        &self,
        py: Python<'py>,
        start: &[u8],
        entities: &Bound<'py, PyDict>,
        decoders: &Bound<'py, PyDict>,
        keep_body: bool,
        timeout: Option<f64>,
    ) -> PyResult<DecodedColumns<'py>> {
        let response = self.call(py, Route::Lookup, &request_body(start, entities)?, timeout)?;
        let columns = decode_columns(py, &response.body, decoders)?;
        let body = keep_body.then(|| PyBytes::new(py, &response.body));
        Ok((columns.names, columns.values, columns.statuses, columns.times, response.read_through, body))
    }

    /// Looks up features, and returns the response as a table, and why rows could not be fetched.
    fn lookup_arrow(
        &self,
        py: Python<'_>,
        start: &[u8],
        entities: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> PyResult<(ArrowTable, Option<String>)> {
        let response = self.call(py, Route::ArrowLookup, &request_body(start, entities)?, timeout)?;
        let table = ArrowTable::read(&response.body);
        let table = table.map_err(|error| {
            ErrorClass::Response.error(py, format!("the response is not a valid Arrow stream: {error}"))
        })?;
        Ok((table, response.read_through))
    }

    /// Returns the server's catalog, as the dictionary of `GET /v1/catalog`.
    fn catalog(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let response = self.call(py, Route::Catalog, &[], timeout)?;
        Ok(decode_any(py, &response.body)?.unbind())
    }
}
