// Rules between keys of the relay's configuration, and the folding of keys that are other keys in
// other words (port-range, secret-file). Called once all single values have been judged.
#pragma once

#include "controlplane/config/server_config.hpp"
#include "controlplane/config/sources.hpp"

namespace bore::config {

// `loaded` has its config and origins filled; errors and warnings go to `into`.
void fold_and_check(LoadedServer& loaded, const Rows& rows, const Environment& environment,
                    const FileReader& read_file, Collected& into);

}  // namespace bore::config
