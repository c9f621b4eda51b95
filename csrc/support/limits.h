// Limits that checks of arguments share.
#pragma once

namespace saal {

/// More numbers than any memory holds. Sizes are multiplied as doubles before they are compared with it.
constexpr double kMostNumbers = 0x1p40;

}  // namespace saal
