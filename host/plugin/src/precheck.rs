//! Checks a component without the compiler, in one pass over the file's sections.
//!
//! Compilation can take minutes and gigabytes, so the file's structure is checked first: imports, exports, and the
//! number of functions. Function bodies are not decoded. The compiler validates the file afterwards.

use wasmparser::{ComponentTypeRef, Parser, Payload};

use super::{LoadError, PluginClass, world::IMPORTS};

/// The exports of every plugin.
pub(super) const EXPORTS: [&str; 3] = ["describe", "configure", "transform"];
/// The maximum nesting of components and modules. Components from compilers have two or three levels.
const DEPTH_MAX: usize = 16;

/// Checks a component's imports and exports against the contract, and its number of functions against the limit.
///
/// # Errors
/// [`LoadError::Broken`] if the sections cannot be read or are nested too deeply, [`LoadError::Functions`],
/// [`LoadError::Imports`], [`LoadError::Exports`].
pub(super) fn check(bytes: &[u8], functions_max: usize, class: PluginClass) -> Result<(), LoadError> {
    let broken = |error: wasmparser::BinaryReaderError| LoadError::Broken(error.to_string());
    let (mut imports, mut exports): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut functions, mut depth) = (0_usize, 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
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
                    return Err(LoadError::Functions { limit: functions_max, class });
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
    check_names(imports.into_iter(), |name| exports.contains(&name))
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
