//! Checks a component without the compiler, in one pass over the file's sections.
//!
//! Compilation can take minutes and gigabytes, so the file's structure is checked first: imports, exports, the number of
//! functions, and the contents of an instance. Function bodies are not decoded. The compiler validates the file afterwards.

use wasmparser::{ComponentTypeRef, Parser, Payload};

use super::{LimitScope, LoadError, PluginClass, contents::Contents, world::IMPORTS};

/// The exports of every plugin.
pub(super) const EXPORTS: [&str; 3] = ["describe", "configure", "transform"];
/// The maximum nesting of components and modules. Components from compilers have two or three levels.
const DEPTH_MAX: usize = 16;

/// Checks a component's imports and exports against the contract, its number of functions against the limit, and its
/// contents against the limits of its class. Returns the number of functions.
///
/// # Errors
/// [`LoadError::Broken`] if the sections cannot be read or are nested too deeply, [`LoadError::Functions`],
/// [`LoadError::Imports`], [`LoadError::Exports`], [`LoadError::Contents`].
pub(super) fn check(bytes: &[u8], functions_max: usize, class: PluginClass) -> Result<usize, LoadError> {
    let broken = |error: wasmparser::BinaryReaderError| LoadError::Broken(error.to_string());
    let (mut imports, mut exports): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut functions, mut depth) = (0_usize, 0_usize);
    let mut contents = Contents::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(broken)?;
        contents.add(&payload).map_err(broken)?;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let why = format!("its modules and components are nested more than {DEPTH_MAX} levels deep");
                    return Err(LoadError::Broken(why));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionStart { count, .. } => {
                functions = functions.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
                if functions > functions_max {
                    return Err(LoadError::Functions { limit: functions_max, scope: LimitScope::Class(class) });
                }
            }
            // Only at depth 0, because the imports and exports of nested components connect components within the file.
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(broken)?;
                    // The host does not have to provide anything for an imported type.
                    if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                        imports.push(import.name.name);
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(broken)?.name.name);
                }
            }
            _ => {}
        }
    }
    check_names(imports.into_iter(), |name| exports.contains(&name))?;
    contents.check(class)?;
    Ok(functions)
}

/// Checks the names of imports and exports.
///
/// # Errors
/// [`LoadError::Imports`], [`LoadError::Exports`].
pub(super) fn check_names<'n>(
    imports: impl Iterator<Item = &'n str>,
    is_exported: impl Fn(&str) -> bool,
) -> Result<(), LoadError> {
    let is_allowed = |name: &str| IMPORTS.iter().any(|allowed| name.starts_with(allowed));
    let foreign: Vec<String> = imports.filter(|name| !is_allowed(name)).map(str::to_owned).collect();
    if !foreign.is_empty() {
        return Err(LoadError::Imports(foreign));
    }
    let missing: Vec<String> =
        EXPORTS.iter().filter(|name| !is_exported(name)).map(|name| (*name).to_owned()).collect();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Exports(missing)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::TABLE_ELEMENTS_MAX;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    /// Returns a number in WebAssembly's encoding.
    fn leb128(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(number & 0x7f).unwrap();
            number >>= 7;
            if number == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    fn section(id: u8, body: &[u8]) -> Vec<u8> {
        [&[id][..], &leb128(body.len()), body].concat()
    }

    /// Returns a core module with this many empty functions.
    fn module(functions: usize) -> Vec<u8> {
        let types = section(1, &[1, 0x60, 0, 0]);
        let declared = section(3, &[leb128(functions), vec![0; functions]].concat());
        let code = section(10, &[leb128(functions), [2, 0, 0x0b].repeat(functions)].concat());
        [&b"\0asm\x01\0\0\0"[..], &types, &declared, &code].concat()
    }

    fn component(modules: &[Vec<u8>]) -> Vec<u8> {
        let sections: Vec<u8> = modules.iter().flat_map(|module| section(1, module)).collect();
        [COMPONENT, &sections].concat()
    }

    #[test]
    fn functions_beyond_limit_are_rejected() {
        let two = component(&[module(60), module(40)]);
        let rejected = |bytes: &[u8], max| check(bytes, max, PluginClass::Compiled).unwrap_err();
        assert!(matches!(rejected(&two, 99), LoadError::Functions { limit: 99, .. }), "of all modules together");
        // Within the limit, the next check runs.
        assert!(matches!(rejected(&two, 100), LoadError::Exports(missing) if missing == EXPORTS));
    }

    /// Returns a core module with this many memories, and with tables of these sizes.
    fn module_of(memories: usize, tables: &[usize]) -> Vec<u8> {
        let memory_types = section(5, &[leb128(memories), [0, 1].repeat(memories)].concat());
        let tables: Vec<Vec<u8>> = tables.iter().map(|size| [&[0x70, 0][..], &leb128(*size)].concat()).collect();
        let table_types = section(4, &[leb128(tables.len()), tables.concat()].concat());
        [&b"\0asm\x01\0\0\0"[..], &table_types, &memory_types].concat()
    }

    /// Returns a section with instances of core modules, by the indexes of the modules.
    fn instances(modules: &[u8]) -> Vec<u8> {
        let instances: Vec<u8> = modules.iter().flat_map(|module| [0, *module, 0]).collect();
        section(2, &[leb128(modules.len()), instances].concat())
    }

    /// Checks a component that has everything but exports.
    fn count_of(component: &[u8], class: PluginClass) -> Option<(&'static str, u64, u64)> {
        let mut contents = Contents::default();
        Parser::new(0).parse_all(component).for_each(|payload| contents.add(&payload.unwrap()).unwrap());
        match contents.check(class) {
            Ok(()) => None,
            Err(LoadError::Contents { what, count, limit, .. }) => Some((what, count, limit)),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn contents_beyond_limits_are_rejected() {
        let (compiled, interpreted) = (PluginClass::Compiled, PluginClass::Interpreted);
        let of = |module: Vec<u8>, count: usize| [component(&[module]), instances(&vec![0; count])].concat();
        let empty = |count| of(module_of(0, &[]), count);
        assert_eq!(count_of(&empty(16), compiled), None);
        assert_eq!(count_of(&empty(17), compiled), Some(("core instances", 17, 16)));
        assert_eq!(count_of(&empty(100), interpreted), None);
        assert_eq!(count_of(&empty(101), interpreted), Some(("core instances", 101, 100)));
        let memories = |count| of(module_of(1, &[]), count);
        assert_eq!(count_of(&memories(2), compiled), None);
        assert_eq!(count_of(&memories(3), compiled), Some(("memories", 3, 2)));
        assert_eq!(count_of(&memories(4), interpreted), None);
        assert_eq!(count_of(&of(module_of(5, &[]), 1), interpreted), Some(("memories", 5, 4)));
        let tables = |count| of(module_of(0, &[1]), count);
        assert_eq!(count_of(&tables(4), compiled), None);
        assert_eq!(count_of(&tables(5), compiled), Some(("tables", 5, 4)));
        let elements = |count| of(module_of(0, &[1, count]), 2);
        assert_eq!(count_of(&elements(TABLE_ELEMENTS_MAX / 2 - 1), interpreted), None);
        assert_eq!(count_of(&elements(TABLE_ELEMENTS_MAX / 2), interpreted), Some(("table elements", 65_538, 65_536)));
    }

    #[test]
    fn contents_are_counted_per_instance() {
        let modules = component(&[module_of(2, &[]), module_of(1, &[])]);
        assert_eq!(count_of(&[&*modules, &instances(&[1, 1])].concat(), PluginClass::Compiled), None);
        let three = [&*modules, &instances(&[0]), &instances(&[1])].concat();
        assert_eq!(count_of(&three, PluginClass::Compiled), Some(("memories", 3, 2)));
        // An instance of a module that the file does not have is an error of the compiler.
        assert_eq!(count_of(&[&*modules, &instances(&[7])].concat(), PluginClass::Compiled), None);
        let nested = [COMPONENT, &section(4, &three), &section(1, &module_of(0, &[])), &instances(&[0])].concat();
        assert_eq!(count_of(&nested, PluginClass::Compiled), Some(("memories", 3, 2)), "in a nested component");
    }

    #[test]
    fn excess_names_count_and_limit() {
        let error = LoadError::Contents { what: "memories", count: 3, limit: 2, class: PluginClass::Compiled };
        assert!(
            error
                .to_string()
                .starts_with("the component has 3 memories, but compiled plugins can have at most 2. hint: ")
        );
    }

    #[test]
    fn deep_nesting_is_rejected() {
        let nested = |depth: usize| {
            let wrap = |inner: Vec<u8>, _| [COMPONENT, &section(4, &inner)].concat();
            (0..depth).fold(COMPONENT.to_vec(), wrap)
        };
        let rejected = |depth| check(&nested(depth), 1, PluginClass::Compiled).unwrap_err();
        assert!(matches!(rejected(DEPTH_MAX), LoadError::Exports(_)));
        assert!(matches!(rejected(DEPTH_MAX + 1), LoadError::Broken(why) if why.contains("nested")));
    }

    #[test]
    fn cut_off_file_is_broken() {
        let whole = component(&[module(3)]);
        for len in COMPONENT.len()..whole.len() {
            let error = check(&whole[..len], 10, PluginClass::Compiled).unwrap_err();
            // A file that is truncated after a complete section is a smaller component, which has no exports.
            assert!(matches!(error, LoadError::Broken(_) | LoadError::Exports(_)), "{len}: {error}");
        }
    }
}
