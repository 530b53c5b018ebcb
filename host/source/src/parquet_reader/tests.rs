//! Tests of files that would exhaust the stack or memory, and of files that are read in small pieces.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray as _, Int64Array, ListArray, RecordBatch, StringArray, StringDictionaryBuilder,
        StructArray,
        builder::{Int64Builder, ListBuilder, MapBuilder, StringBuilder},
    },
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Int32Type, Schema},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, Encoding, GzipLevel, ZstdLevel},
    file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion},
};

use super::*;
use crate::row_group::FileFilter;

const MIB: u64 = 1 << 20;

/// Returns limits on memory that do not grow with the number of columns.
fn limits(memory_max: u64) -> ParquetLimits {
    ParquetLimits { memory_max, column_bytes: 0, piece_bytes: memory_max / 8, ..ParquetLimits::default() }
}

fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
}

fn written(columns: &[(&str, ArrayRef)], properties: WriterPropertiesBuilder) -> Bytes {
    let columns = columns.iter().map(|(name, array)| (*name, Arc::clone(array), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

/// Returns all batches of a file's columns, after the first `skip` rows.
fn read(file: &Bytes, limits: &ParquetLimits, skip: u64) -> Result<Vec<RecordBatch>, SourceError> {
    let thread = DecodeThread::start().unwrap();
    let size = file.len() as u64;
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let fetch = &mut |range: Range<u64>| Ok(file.slice(at(range.start)..at(range.end)));
    let metadata = metadata("a.parquet", size, limits, &thread, None, fetch)?;
    let columns = metadata.file_metadata().schema_descr().root_schema().get_fields().len();
    let roots: Vec<usize> = (0..columns).collect();
    let filter = FileFilter::new(None, 0, None, &metadata);
    let plan = Plan::new(Arc::new(metadata), &roots, &vec![false; columns], &thread);
    let plan = plan.map_err(|why| SourceError::Unreadable { path: "a.parquet".to_owned(), why })?;
    let mut rows = FileRows::new("a.parquet".into(), plan, filter, *limits, skip);
    let parts = Arc::new(vec![(0, file.clone())]);
    let mut batches = Vec::new();
    while let Some(batch) = rows.next(&thread, &mut |_, _, _| Ok(Input::Parts(Arc::clone(&parts), size)))? {
        batches.push(batch);
    }
    Ok(batches)
}

fn message(file: &Bytes, limits: &ParquetLimits) -> String {
    let Err(error) = read(file, limits, 0) else { panic!("the file was read without an error") };
    assert!(error.to_string().starts_with("a.parquet"), "{error}");
    error.to_string()
}

/// Returns a file with only a footer.
fn footer_only(footer: &[u8]) -> Bytes {
    let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
    [b"PAR1", footer, &length, b"PAR1"].concat().into()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// Returns a schema node: optional, with this name and this many children, or a leaf of integers.
fn node(name: &str, children: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if children == 0 {
        bytes.extend([0x15, 0x02, 0x25, 0x02, 0x18]);
    } else {
        bytes.extend([0x35, 0x02, 0x18]);
    }
    bytes.extend(varint(name.len()));
    bytes.extend(name.as_bytes());
    if children > 0 {
        bytes.push(0x15);
        bytes.extend(varint(children << 1));
    }
    bytes.push(0);
    bytes
}

/// Returns a footer with these nodes and this many empty row groups.
fn footer(nodes: &[Vec<u8>], groups: usize) -> Vec<u8> {
    let mut bytes = vec![0x15, 0x02, 0x19, 0xfc];
    bytes.extend(varint(nodes.len()));
    bytes.extend(nodes.concat());
    bytes.extend([0x16, 0x00, 0x19, 0xfc]);
    bytes.extend(varint(groups));
    // { 1: list<ColumnChunk> columns = [], 2: total_byte_size = 0, 3: num_rows = 0 }
    (0..groups).for_each(|_| bytes.extend([0x19, 0x0c, 0x16, 0x00, 0x16, 0x00, 0x00]));
    bytes.push(0);
    bytes
}

#[test]
fn deep_schema_is_an_error() {
    let nested = |depth: usize| {
        let nodes = (0..depth).map(|_| node("g", 1)).chain([node("x", 0)]).collect::<Vec<_>>();
        footer_only(&footer(&nodes, 0))
    };
    for depth in [65, 1_500, 200_000] {
        let message = message(&nested(depth), &ParquetLimits::default());
        assert!(message.contains("the schema is nested more than 64 levels deep"), "{message}");
    }
    assert_eq!(read(&nested(64), &ParquetLimits::default(), 0).unwrap().len(), 0);
}

#[test]
fn oversized_footer_is_an_error() {
    // Each leaf has the names of all its ancestors: 4,000 times one megabyte.
    let mut nodes = vec![node("root", 1), node(&"g".repeat(1 << 20), 4_000)];
    nodes.extend((0..4_000).map(|_| node("x", 0)));
    let file = footer_only(&footer(&nodes, 0));
    let message = message(&file, &ParquetLimits::default());
    assert!(message.contains("the memory for the file's metadata in bytes is 4"), "{message}");
    assert!(message.contains("hint: raise 'sync: commit_bytes'"), "{message}");
    // 10,000 row groups, each of which takes seven bytes.
    let file = footer_only(&footer(&[node("root", 1), node("x", 0)], 10_000));
    assert!(self::message(&file, &limits(MIB)).contains("the memory for the file's metadata"));
    // A footer that is itself larger than the limit.
    assert!(self::message(&file, &limits(60_000)).contains("the size of the footer in bytes is 7"));
}

#[test]
fn excess_columns_are_an_error() {
    let mut nodes = vec![node("root", 100_000)];
    nodes.extend((0..100_000).map(|_| node("x", 0)));
    let message = message(&footer_only(&footer(&nodes, 0)), &ParquetLimits::default());
    assert!(message.contains("the number of columns is 100000, but at most 20000 is allowed"), "{message}");
}

#[test]
fn repeated_text_is_returned_in_pieces() {
    let text = "x".repeat(100_000);
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..2_000).map(|_| &text)));
    for (what, properties) in [
        ("dictionary", properties().set_compression(Compression::ZSTD(ZstdLevel::default()))),
        ("shared prefixes", properties().set_dictionary_enabled(false).set_encoding(Encoding::DELTA_BYTE_ARRAY)),
    ] {
        let file = written(&[("text", Arc::clone(&texts))], properties);
        assert!(file.len() < 300_000, "{what}: {}", file.len());
        let limits = limits(16 * MIB);
        let batches = read(&file, &limits, 0).unwrap();
        let sizes = batches.iter().map(|batch| batch.num_rows() * text.len());
        assert!(sizes.clone().all(|bytes| bytes as u64 <= limits.piece_bytes), "{what}: {:?}", sizes.max());
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2_000, "{what}");
        assert!(batches.iter().all(|batch| batch.column(0).as_string::<i32>().iter().all(|row| row == Some(&*text))));
    }
}

/// Returns a column of lists of these lengths, in which all items are the same number.
fn lists(lengths: &[usize]) -> ArrayRef {
    let mut builder = ListBuilder::new(Int64Builder::new());
    for length in lengths {
        builder.append_value((0..*length).map(|_| Some(7)));
    }
    Arc::new(builder.finish())
}

#[test]
fn long_lists_reduce_batch_rows() {
    // The first 200 rows are large, and do not fit into one batch.
    let lengths: Vec<usize> = (0..3_000).map(|row| if row < 200 { 10_000 } else { row % 3 }).collect();
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let file = written(&[("list", lists(&lengths))], properties().set_writer_version(version));
        assert!(file.len() < 100_000, "{}", file.len());
        let batches = read(&file, &limits(8 * MIB), 0).unwrap();
        let read: Vec<usize> = batches.iter().flat_map(|batch| lengths_of(batch.column(0).as_list())).collect();
        assert_eq!(read, lengths);
        assert!(batches.iter().all(|batch| batch.column(0).as_list::<i32>().values().len() <= 250_000));
    }
}

fn lengths_of(list: &ListArray) -> Vec<usize> {
    (0..list.len()).map(|row| usize::try_from(list.value_length(row)).unwrap()).collect()
}

/// Many small files are read one after another, so a batch must not have memory for more rows than it has.
#[test]
fn few_rows_need_little_memory() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
    let names: Vec<String> = (0..20).map(|column| format!("column{column}")).collect();
    let columns: Vec<(&str, ArrayRef)> = names.iter().map(|name| (name.as_str(), Arc::clone(&numbers))).collect();
    let batches = read(&written(&columns, properties()), &limits(8 * MIB), 0).unwrap();
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    assert!(bytes < 20 * 512, "{bytes}");
}

#[test]
fn oversized_row_is_an_error() {
    let file = written(&[("list", lists(&[1, 2_000_000, 1]))], properties());
    assert!(file.len() < 50_000, "{}", file.len());
    let message = message(&file, &limits(32 * MIB));
    assert!(message.starts_with("a.parquet: the memory to decode row group 0, column 'list.list.item', in bytes is"));
    assert!(message.contains("at most 33554432 is allowed. hint: raise 'sync: commit_bytes'"), "{message}");
    assert_eq!(read(&file, &limits(256 * MIB), 0).unwrap().len(), 1);
    // The items of the list are references to a large value in a dictionary.
    let mut builder = ListBuilder::new(StringBuilder::new());
    builder.append_value((0..50_000).map(|_| Some("y".repeat(1_000))));
    let file = written(&[("list", Arc::new(builder.finish()))], properties());
    let message = self::message(&file, &limits(32 * MIB));
    assert!(message.contains("the size of row 0 in bytes is 50"), "{message}");
}

/// The file determines how many fields a struct has, so the memory limit must not depend on that number.
#[test]
fn memory_limit_ignores_struct_field_count() {
    const FIELDS: usize = 100;
    let limits = ParquetLimits { column_bytes: MIB, ..limits(MIB) };
    let texts = |row_bytes: usize| -> Vec<(String, ArrayRef)> {
        let text = "x".repeat(row_bytes / FIELDS);
        let column = |n| (format!("c{n}"), Arc::new(StringArray::from(vec![&*text])) as ArrayRef);
        (0..FIELDS).map(column).collect()
    };
    let as_columns = |row_bytes| {
        let texts = texts(row_bytes);
        let columns: Vec<(&str, ArrayRef)> = texts.iter().map(|(name, array)| (&**name, Arc::clone(array))).collect();
        written(&columns, properties())
    };
    let as_struct = |row_bytes| {
        let fields =
            texts(row_bytes).into_iter().map(|(name, array)| (Arc::new(Field::new(name, DataType::Utf8, true)), array));
        let fields: Vec<_> = fields.collect();
        written(&[("s", Arc::new(StructArray::from(fields)))], properties())
    };
    let row_bytes = 10 << 20;
    assert_eq!(read(&as_columns(row_bytes), &limits, 0).unwrap().len(), 1);
    let error = message(&as_struct(row_bytes), &limits);
    assert!(error.contains("sync: commit_bytes") && error.contains("2097152"), "{error}");
    assert_eq!(read(&as_struct(200 << 10), &limits, 0).unwrap().len(), 1);
}

#[test]
fn page_beyond_memory_limit_fails() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["z".repeat(9 << 20)]));
    for compression in [Compression::ZSTD(ZstdLevel::default()), Compression::GZIP(GzipLevel::default())] {
        let properties = properties().set_dictionary_enabled(false).set_compression(compression);
        let file = written(&[("text", Arc::clone(&text))], properties);
        let message = message(&file, &limits(8 * MIB));
        assert!(message.contains("the memory to decode row group 0, column 'text', in bytes is 94"), "{message}");
    }
}

#[test]
fn page_beyond_claimed_size_fails() {
    const LENGTH: usize = 8 << 20;
    let text: ArrayRef = Arc::new(StringArray::from(vec!["z".repeat(LENGTH)]));
    for compression in [
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(parquet::basic::BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let properties = properties().set_dictionary_enabled(false).set_compression(compression);
        let mut file = written(&[("text", Arc::clone(&text))], properties).to_vec();
        // The second field of the page header is the uncompressed page size.
        let head = &file[4..10];
        assert_eq!((head[0], head[2]), (0x15, 0x15), "{compression}");
        let claimed = varint(3 << 21);
        assert_eq!(claimed.len(), 4);
        file[7..11].copy_from_slice(&claimed);
        let message = message(&file.into(), &ParquetLimits::default());
        assert!(message.contains("is not a readable Parquet file"), "{compression}: {message}");
    }
}

#[test]
fn page_larger_than_its_values_fails() {
    const VALUES: i64 = 200_000;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..VALUES));
    let properties = properties()
        .set_dictionary_enabled(false)
        .set_compression(Compression::BROTLI(parquet::basic::BrotliLevel::default()))
        .set_data_page_size_limit(8 << 20)
        .set_data_page_row_count_limit(1 << 20);
    let mut file = written(&[("n", numbers)], properties).to_vec();
    assert!(read(&file.clone().into(), &ParquetLimits::default(), 0).unwrap().len() > 1);
    // The second field of the page header is the uncompressed page size.
    assert_eq!((file[4], file[6]), (0x15, 0x15));
    for (claimed, is_rejected) in [(100 << 20, true), (6 << 20, true), (5 << 20, false)] {
        let bytes = varint(claimed * 2);
        assert_eq!(bytes.len(), 4);
        file[7..11].copy_from_slice(&bytes);
        // A claimed size that passes the check fails later, because the page does not decompress to that size.
        let message = message(&file.clone().into(), &ParquetLimits::default());
        let found = message.contains(&format!("a page claims {claimed} bytes for 200000 values"));
        assert_eq!(found, is_rejected, "{message}");
    }
}

#[test]
fn dictionary_with_excess_values_fails() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7; 100]));
    let mut file = written(&[("n", numbers)], properties().set_compression(Compression::UNCOMPRESSED)).to_vec();
    // { 7: dictionary_page_header { 1: num_values = 1, ..
    let head = file.windows(3).position(|bytes| bytes == [0x4c, 0x15, 0x02]).unwrap();
    file[head + 2] = 0x7e;
    let message = message(&file.into(), &ParquetLimits::default());
    assert!(message.contains("a dictionary claims 63 values in 8 bytes"), "{message}");
}

/// Returns a batch with columns of strings, numbers, lists, maps, dictionaries, structs and bytes, with nulls.
fn shapes(rows: usize) -> RecordBatch {
    let text = |row: usize| (row % 7 != 3).then(|| format!("text {}", "ab".repeat(row % 40)));
    let mut lists = ListBuilder::new(ListBuilder::new(StringBuilder::new()));
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    let mut words = StringDictionaryBuilder::<Int32Type>::new();
    for row in 0..rows {
        for item in 0..row % 4 {
            lists.values().append_value((0..item).map(text));
        }
        lists.append(row % 5 != 1);
        for item in 0..row % 3 {
            maps.keys().append_value(format!("key {item}"));
            maps.values().append_option((item % 2 == 0).then_some(i64::try_from(row).unwrap()));
        }
        maps.append(row % 6 != 2).unwrap();
        words.append_option(text(row % 9));
    }
    let texts: ArrayRef = Arc::new((0..rows).map(text).collect::<StringArray>());
    let numbers: ArrayRef = Arc::new((0..rows).map(|row| (row % 3 != 0).then_some(row as i64)).collect::<Int64Array>());
    let pair =
        arrow::array::StructArray::try_from(vec![("n", Arc::clone(&numbers)), ("t", Arc::clone(&texts))]).unwrap();
    let columns: [(&str, ArrayRef); 7] = [
        ("texts", Arc::clone(&texts)),
        ("numbers", numbers),
        ("lists", Arc::new(lists.finish())),
        ("maps", Arc::new(maps.finish())),
        ("words", Arc::new(words.finish())),
        ("pair", Arc::new(pair)),
        ("bytes", cast(&texts, &DataType::LargeBinary).unwrap()),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
}

#[test]
fn limits_do_not_change_rows() {
    let batch = shapes(3_000);
    for (version, compression, dictionary) in [
        (WriterVersion::PARQUET_1_0, Compression::SNAPPY, true),
        (WriterVersion::PARQUET_2_0, Compression::GZIP(GzipLevel::default()), true),
        (WriterVersion::PARQUET_2_0, Compression::LZ4_RAW, false),
        (WriterVersion::PARQUET_1_0, Compression::BROTLI(parquet::basic::BrotliLevel::default()), false),
        (WriterVersion::PARQUET_1_0, Compression::LZ4, true),
    ] {
        let properties = properties()
            .set_writer_version(version)
            .set_compression(compression)
            .set_dictionary_enabled(dictionary)
            .set_max_row_group_row_count(Some(1_100))
            .set_data_page_row_count_limit(300);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        let file: Bytes = writer.into_inner().unwrap().into();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap().build().unwrap();
        let expected: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let expected = concat_batches(&expected[0].schema(), &expected).unwrap();
        for (memory, skip) in [(256 * MIB, 0), (MIB / 2, 0), (MIB / 2, 1_234), (256 * MIB, 2_999)] {
            let read = read(&file, &limits(memory), skip).unwrap();
            let read = concat_batches(&read[0].schema(), &read).unwrap();
            let from = usize::try_from(skip).unwrap();
            assert_eq!(read.num_rows(), 3_000 - from);
            for (place, column) in read.columns().iter().enumerate() {
                let expected = expected.column(place).slice(from, 3_000 - from);
                let expected = cast(&expected, column.data_type()).unwrap();
                let name = expected_name(&batch, place);
                assert_eq!(column, &expected, "{name}, {version:?}, {compression}, {memory}, {skip}");
            }
        }
    }
}

fn expected_name(batch: &RecordBatch, place: usize) -> String {
    batch.schema().field(place).name().clone()
}

#[test]
fn fixed_width_values_are_bounded() {
    let item = Field::new("bytes", DataType::FixedSizeBinary(1 << 20), true);
    let nulls = arrow::array::new_null_array(item.data_type(), 100);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![item])), vec![nulls]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties().build())).unwrap();
    writer.write(&batch).unwrap();
    let file: Bytes = writer.into_inner().unwrap().into();
    // A null takes no space in the file, but a mebibyte in memory.
    let batches = read(&file, &limits(64 * MIB), 0).unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100);
    assert!(batches.iter().all(|batch| batch.num_rows() <= 8), "{:?}", batches.len());
}

#[test]
fn null_fixed_size_list_takes_no_memory() {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let list = Field::new("list", DataType::FixedSizeList(item, 1 << 30), true);
    let schema = Arc::new(Schema::new(vec![list]));
    let nulls = lists(&[]);
    let nulls = arrow::compute::concat(&[&nulls, &arrow::array::new_null_array(nulls.data_type(), 50)]).unwrap();
    // The file contains lists, and its Arrow schema claims that each has 2^30 items.
    let encoded = parquet::arrow::encode_arrow_schema(&schema);
    let hint = parquet::file::metadata::KeyValue::new(parquet::arrow::ARROW_SCHEMA_META_KEY.to_owned(), encoded);
    let batch = RecordBatch::try_from_iter_with_nullable([("list", nulls, true)]).unwrap();
    let options = parquet::arrow::arrow_writer::ArrowWriterOptions::new()
        .with_skip_arrow_metadata(true)
        .with_properties(properties().set_key_value_metadata(Some(vec![hint])).build());
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    let file: Bytes = writer.into_inner().unwrap().into();
    let batches = read(&file, &limits(MIB), 0).unwrap();
    assert_eq!((batches.len(), batches[0].column(0).null_count()), (1, 50));
}

#[test]
fn empty_row_group_list_of_bytes_is_read() {
    let nodes = [node("g", 1), node("x", 0)];
    let of_structs = footer(&nodes, 0);
    // fastparquet writes an empty list of bytes.
    let of_bytes = [&of_structs[..of_structs.len() - 3], &[0x03, 0x00]].concat();
    for footer in [of_structs, of_bytes] {
        assert_eq!(read(&footer_only(&footer), &ParquetLimits::default(), 0).unwrap().len(), 0);
    }
}
