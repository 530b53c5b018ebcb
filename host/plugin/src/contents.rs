//! Counts what the instances of a component consist of, from the sections of its file.
//!
//! Each core module is counted once for each of its instances. Nested components are counted once. The engine counts again
//! after the compilation, including the instances that the compiler adds between composed components.

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentTypeRef, Instance,
    Payload,
};

use super::{
    LoadError, PluginClass,
    shape::{Shape, TABLE_ELEMENTS_MAX},
};

/// The contents of the modules and components that surround the current position in the file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    levels: Vec<Level>,
    /// The counts of all components that have ended.
    total: Counts,
}

#[derive(Debug)]
enum Level {
    Module(Counts),
    /// A component with its core modules. A module without counts is imported, or is an alias of another module.
    Component(Vec<Counts>),
}

/// The contents of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    core_instances: u64,
    memories: u64,
    tables: u64,
    table_elements: u64,
}

/// The maximum number of core modules of a component. The compiler has the same limit.
const MODULES_MAX: usize = 1_000;

// === impl Contents ===

impl Contents {
    /// Adds the next part of the file.
    ///
    /// # Errors
    /// If a section cannot be read.
    pub(super) fn add(&mut self, payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::Version { encoding: wasmparser::Encoding::Module, .. } => {
                self.levels.push(Level::Module(Counts { core_instances: 1, ..Counts::default() }));
            }
            Payload::Version { .. } => self.levels.push(Level::Component(Vec::new())),
            Payload::End(_) => {
                if let Some(Level::Module(counts)) = self.levels.pop() {
                    self.add_module(counts);
                }
            }
            Payload::MemorySection(section) => {
                if let Some(Level::Module(counts)) = self.levels.last_mut() {
                    counts.memories += u64::from(section.count());
                }
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    let elements = table?.ty.initial;
                    if let Some(Level::Module(counts)) = self.levels.last_mut() {
                        counts.tables += 1;
                        counts.table_elements = counts.table_elements.saturating_add(elements);
                    }
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        self.instantiate(module_index as usize);
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    if let ComponentTypeRef::Module(_) = import?.ty {
                        self.add_module(Counts::default());
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    let is_module = matches!(
                        alias?,
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. }
                            | ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, .. }
                    );
                    if is_module {
                        self.add_module(Counts::default());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds a core module to the current component.
    fn add_module(&mut self, counts: Counts) {
        if let Some(Level::Component(modules)) = self.levels.last_mut()
            && modules.len() < MODULES_MAX
        {
            modules.push(counts);
        }
    }

    /// Adds an instance of a core module of the current component.
    fn instantiate(&mut self, module: usize) {
        let Some(Level::Component(modules)) = self.levels.last() else { return };
        let counts = modules.get(module).copied().unwrap_or_default();
        self.total.core_instances = self.total.core_instances.saturating_add(counts.core_instances);
        self.total.memories = self.total.memories.saturating_add(counts.memories);
        self.total.tables = self.total.tables.saturating_add(counts.tables);
        self.total.table_elements = self.total.table_elements.saturating_add(counts.table_elements);
    }

    /// Checks the counts against the limits of a class.
    ///
    /// # Errors
    /// [`LoadError::Contents`] with the first count that exceeds its limit.
    pub(super) fn check(&self, class: PluginClass) -> Result<(), LoadError> {
        let Shape { core_instances, memories, tables, .. } = Shape::of(class);
        let counts = [
            ("core instances", self.total.core_instances, core_instances.into()),
            ("memories", self.total.memories, memories.into()),
            ("tables", self.total.tables, tables.into()),
            ("table elements", self.total.table_elements, TABLE_ELEMENTS_MAX as u64),
        ];
        match counts.into_iter().find(|(_, count, limit)| count > limit) {
            Some((what, count, limit)) => Err(LoadError::Contents { what, count, limit, class }),
            None => Ok(()),
        }
    }
}
