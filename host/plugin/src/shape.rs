//! The maximum contents of a component, which determine the sizes of the instance pools.

use super::PluginClass;

/// The number of instances in a pool, and the maximum contents of one component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The maximum number of instances at a time. Unused slots take address space, but no memory.
    pub(super) instances: u32,
    /// The instances of core modules in a component.
    pub(super) core_instances: u32,
    /// The memories of all core instances.
    pub(super) memories: u32,
    /// The tables of all core instances.
    pub(super) tables: u32,
}

/// The maximum number of elements of all tables of an instance. The elements are function pointers; a plugin needs one for
/// each function in a vtable.
pub(super) const TABLE_ELEMENTS_MAX: usize = 65_536;

// === impl Shape ===

impl Shape {
    pub(super) fn of(class: PluginClass) -> Self {
        match class {
            // A component with imports has one or two adapter modules in addition to the plugin's own module. A component that
            // is composed of two has two memories.
            PluginClass::Compiled => Self { instances: 512, core_instances: 16, memories: 2, tables: 4 },
            // CPython is linked from dozens of modules, which share a memory and a table. The adapters of a JavaScript engine
            // have memories of their own.
            PluginClass::Interpreted => Self { instances: 64, core_instances: 100, memories: 4, tables: 50 },
        }
    }
}
