//! Converts columns to the bytes of NumPy arrays. NumPy has no nulls: in floats they become NaN, and in timestamps NaT.

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray},
    datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use pyo3::{Bound, PyResult, Python, types::PyByteArray};

/// A value of an array, in the byte order of the machine.
trait Element: Copy {
    /// The value for null, if there is one.
    const NULL: Option<Self>;
    fn append(self, bytes: &mut Vec<u8>);
}

macro_rules! element {
    ($type:ty, $null:expr) => {
        impl Element for $type {
            const NULL: Option<Self> = $null;

            #[expect(clippy::host_endian_bytes, reason = "NumPy reads the bytes in this process")]
            fn append(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_ne_bytes());
            }
        }
    };
}

element!(f32, Some(f32::NAN));
element!(f64, Some(f64::NAN));
element!(i32, None);
element!(i64, None);

/// Returns the name of the NumPy type and the bytes of an array. Returns `None` if NumPy has no type for the values, or
/// no value for a null.
pub(crate) fn bytes<'py>(
    py: Python<'py>,
    kind: &DataType,
    arrays: &[&ArrayRef],
) -> PyResult<Option<(&'static str, Bound<'py, PyByteArray>)>> {
    let found = match kind {
        DataType::Float32 => primitive::<Float32Type>(arrays).map(|bytes| ("float32", bytes)),
        DataType::Float64 => primitive::<Float64Type>(arrays).map(|bytes| ("float64", bytes)),
        DataType::Int32 => primitive::<Int32Type>(arrays).map(|bytes| ("int32", bytes)),
        DataType::Int64 => primitive::<Int64Type>(arrays).map(|bytes| ("int64", bytes)),
        DataType::Timestamp(..) => Some(("datetime64[us]", instants(arrays))),
        DataType::Boolean => booleans(arrays).map(|bytes| ("bool", bytes)),
        _ => None,
    };
    Ok(found.map(|(kind, bytes)| (kind, PyByteArray::new(py, &bytes))))
}

fn primitive<T: ArrowPrimitiveType>(arrays: &[&ArrayRef]) -> Option<Vec<u8>>
where
    T::Native: Element,
{
    let rows: usize = arrays.iter().map(|array| array.len()).sum();
    let mut bytes = Vec::with_capacity(rows * size_of::<T::Native>());
    for array in arrays {
        if array.null_count() == 0 {
            array.as_primitive::<T>().values().iter().for_each(|value| value.append(&mut bytes));
        } else {
            let null = T::Native::NULL?;
            array.as_primitive::<T>().iter().for_each(|value| value.unwrap_or(null).append(&mut bytes));
        }
    }
    Some(bytes)
}

/// NumPy's NaT is the smallest integer.
fn instants(arrays: &[&ArrayRef]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let values = arrays.iter().flat_map(|array| array.as_primitive::<TimestampMicrosecondType>().iter());
    values.for_each(|value| value.unwrap_or(i64::MIN).append(&mut bytes));
    bytes
}

fn booleans(arrays: &[&ArrayRef]) -> Option<Vec<u8>> {
    let values = arrays.iter().flat_map(|array| array.as_boolean().iter());
    values.map(|value| value.map(u8::from)).collect()
}
