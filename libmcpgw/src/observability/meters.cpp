#include "observability/meters.hpp"

#include <cstdio>
#include <cstdlib>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

void append_escaped(std::string& out, std::string_view text, bool quotes) {
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || (quotes && c == '"')) out += '\\';
    out += c;
  }
}

}  // namespace

void Histogram::Reading::add(const Reading& other) {
  for (std::size_t i = 0; i < buckets.size(); ++i) buckets[i] += other.buckets[i];
  count += other.count;
  seconds += other.seconds;
}

Histogram::Reading Histogram::read() const {
  Reading out;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    out.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
    out.count += out.buckets[i];
  }
  out.seconds = static_cast<double>(sum_us_.load(std::memory_order_relaxed)) / 1e6;
  return out;
}

void MetricsText::family(std::string_view name, Type type, std::string_view help) {
  name_ = name;
  std::string_view shown = name;
  // OpenMetrics names the family of a counter without the ending of its samples.
  if (openmetrics_ && type == Type::counter && shown.ends_with("_total")) shown.remove_suffix(6);
  out_ += "# HELP ";
  out_ += shown;
  out_ += ' ';
  append_escaped(out_, help, openmetrics_);
  out_ += "\n# TYPE ";
  out_ += shown;
  out_ += type == Type::counter ? " counter\n" : type == Type::gauge ? " gauge\n" : " histogram\n";
}

std::string MetricsText::number(double value) const {
  char text[40];
  std::snprintf(text, sizeof text, "%.15g", value);
  std::string out = text;
  if (openmetrics_ && out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}

void MetricsText::sample(std::string_view suffix, const Labels& labels, std::string_view value,
                         std::string_view bound) {
  out_ += name_;
  out_ += suffix;
  char before = '{';
  const auto label = [&](std::string_view name, std::string_view text) {
    out_ += before;
    out_ += name;
    out_ += "=\"";
    append_escaped(out_, text, true);
    out_ += '"';
    before = ',';
  };
  for (const auto& [name, text] : labels) label(name, text);
  if (!bound.empty()) label("le", bound);
  if (before == ',') out_ += '}';
  out_ += ' ';
  out_ += value;
  out_ += '\n';
}

void MetricsText::value(const Labels& labels, std::uint64_t value) {
  sample({}, labels, std::to_string(value));
}

void MetricsText::value(const Labels& labels, double value) { sample({}, labels, number(value)); }

void MetricsText::histogram(const Labels& labels, const Histogram::Reading& reading, bool milliseconds) {
  const double unit = milliseconds ? 1000 : 1;
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < Histogram::kSeconds.size(); ++i) {
    seen += reading.buckets[i];
    sample("_bucket", labels, std::to_string(seen), number(Histogram::kSeconds[i] * unit));
  }
  sample("_bucket", labels, std::to_string(reading.count), "+Inf");
  sample("_sum", labels, number(reading.seconds * unit));
  sample("_count", labels, std::to_string(reading.count));
}

std::string MetricsText::finish() {
  if (openmetrics_) out_ += "# EOF\n";
  return std::move(out_);
}

bool prefers_openmetrics(std::string_view accept) {
  double open = 0, plain = 0;
  for (const std::string& range : split(accept, ',')) {
    std::string_view rest = trim(range);
    const std::string_view type = trim(rest.substr(0, rest.find(';')));
    double quality = 1;
    while (rest.find(';') != std::string_view::npos) {
      rest.remove_prefix(rest.find(';') + 1);
      const std::string_view parameter = trim(rest.substr(0, rest.find(';')));
      if (starts_with_icase(parameter, "q="))
        quality = std::strtod(std::string(parameter.substr(2)).c_str(), nullptr);
    }
    if (iequals(type, "application/openmetrics-text"))
      open = std::max(open, quality);
    else if (iequals(type, "text/plain") || iequals(type, "text/*") || iequals(type, "*/*"))
      plain = std::max(plain, quality);
  }
  return open > 0 && open >= plain;
}

}  // namespace mcpgw::detail
