// A tool of the build. Turns docs/openapi.yaml into the files that /docs serves, and files into C++:
//
//   embed_docs docs OUT.cpp openapi.yaml docs.css docs.js
//     the document (YAML, JSON, a plain page), style and script
//   embed_docs files OUT.cpp HEADER DIRECTORY
//     all files of a directory, as HEADER declares them
//   embed_docs gzip FILE OUT
//     one file, compressed
#include <yaml-cpp/yaml.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

/// The same bytes for the same input: no name, no time.
std::string gzip(const std::string& text) {
  z_stream stream{};
  if (::deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("zlib does not start");
  std::string out(::deflateBound(&stream, text.size()) + 32, '\0');
  std::string in = text;
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = ::deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  if (result != Z_STREAM_END) throw std::runtime_error("zlib failed");
  return out;
}

// --- the document as JSON ---------------------------------------------------------------------------------

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      throw std::runtime_error("a control character in the document");
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string scalar_json(const YAML::Node& node) {
  static const std::regex number(R"(-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)");
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return quote(text);  // quoted, or a block of text
  if (text == "~") return "null";
  if (text == "true" || text == "false" || text == "null" || std::regex_match(text, number)) return text;
  return quote(text);
}

std::string to_json(const YAML::Node& node) {
  std::string out;
  switch (node.Type()) {
    case YAML::NodeType::Sequence:
      for (const auto& element : node) out += (out.empty() ? "" : ",") + to_json(element);
      return "[" + out + "]";
    case YAML::NodeType::Map: {
      std::set<std::string> names;  // in the order of the document, unlike a sorted container
      for (const auto& member : node) {
        const std::string& name = member.first.Scalar();
        if (!names.insert(name).second) throw std::runtime_error("a member twice: " + name);
        out += (out.empty() ? "" : ",") + quote(name) + ":" + to_json(member.second);
      }
      return "{" + out + "}";
    }
    case YAML::NodeType::Scalar:
      return scalar_json(node);
    default:
      return "null";
  }
}

// --- the document as a page without scripts ---------------------------------------------------------------

/// HTML of a text in which `...` is code and a blank line parts paragraphs.
std::string html(const std::string& text) {
  std::string out;
  bool code = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '`') {
      out += code ? "</code>" : "<code>";
      code = !code;
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\n' && i + 1 < text.size() && text[i + 1] == '\n') {
      out += "<br><br>";
      ++i;
    } else {
      out += c;
    }
  }
  return code ? out + "</code>" : out;
}

class Page {
 public:
  explicit Page(const YAML::Node& document) : document_(document) {}

  std::string render() const {
    const std::string title = html(text(document_["info"]["title"])) + " API";
    const std::string description = text(document_["info"]["description"]);
    std::ostringstream out;
    out << "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        << "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" << title
        << "</title>\n<link rel=\"stylesheet\" href=\"docs/docs.css\">\n</head>\n<body>\n<main>\n<h1>"
        << title << "</h1>\n<p>" << html(description.substr(0, description.find("\n\n#")))
        << "</p>\n"  // the rest is Markdown
        << "<p>The whole document: <a href=\"docs/openapi.yaml\">openapi.yaml</a>, "
        << "<a href=\"docs/openapi.json\">openapi.json</a>.</p>\n";
    for (const auto& tag : document_["tags"]) group(out, text(tag["name"]), text(tag["description"]));
    out << "</main>\n</body>\n</html>\n";
    return out.str();
  }

 private:
  static std::string text(const YAML::Node& node) {
    return node && node.IsScalar() ? node.Scalar() : std::string();
  }

  YAML::Node resolved(const YAML::Node& node) const {
    const std::string ref = text(node["$ref"]);
    if (ref.empty()) return node;
    YAML::Node at = YAML::Clone(document_);
    std::istringstream parts(ref.substr(2));
    for (std::string part; std::getline(parts, part, '/');) at.reset(at[part]);
    return at;
  }

  void group(std::ostream& out, const std::string& tag, const std::string& description) const {
    out << "<section>\n<h2>" << html(tag) << "</h2>\n";
    if (!description.empty()) out << "<p>" << html(description) << "</p>\n";
    for (const auto& item : document_["paths"])
      for (const auto& operation : item.second)
        if (operation.second.IsMap() && text(operation.second["tags"][0]) == tag)
          one(out, operation.first.Scalar(), item.first.Scalar(), operation.second);
    out << "</section>\n";
  }

  void one(std::ostream& out, std::string method, const std::string& path,
           const YAML::Node& operation) const {
    std::transform(method.begin(), method.end(), method.begin(),
                   [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
    out << "<details>\n<summary><b>" << method << "</b> <code>" << html(path) << "</code> "
        << html(text(operation["summary"])) << " <i>" << html(text(operation["x-mcpgw-who"]))
        << "</i></summary>\n";
    if (operation["description"]) out << "<p>" << html(text(operation["description"])) << "</p>\n";
    if (operation["parameters"]) {
      out << "<table>\n";
      for (const auto& given : operation["parameters"]) {
        const YAML::Node parameter = resolved(given);
        out << "<tr><td><code>" << html(text(parameter["name"])) << "</code></td><td>"
            << html(text(parameter["in"])) << "</td><td>" << html(text(parameter["description"]))
            << "</td></tr>\n";
      }
      out << "</table>\n";
    }
    out << "<table>\n";
    for (const auto& response : operation["responses"])
      out << "<tr><td><code>" << html(response.first.Scalar()) << "</code></td><td>"
          << html(text(resolved(response.second)["description"])) << "</td></tr>\n";
    out << "</table>\n</details>\n";
  }

  const YAML::Node document_;
};

// --- C++ --------------------------------------------------------------------------------------------------

std::string literal(const std::string& bytes) {
  std::string out = "\"";
  std::size_t column = 0;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\' && c != '?') {
      out += c;
      ++column;
    } else {
      for (const int shift : {6, 3, 0}) {
        if (shift == 6) out += '\\';
        out += static_cast<char>('0' + ((byte >> shift) & 7));
      }
      column += 4;
    }
    if (column > 100) {
      out += "\"\n    \"";
      column = 0;
    }
  }
  return out + '"';
}

std::string member(const std::string& name, const std::string& bytes) {
  const std::string packed = gzip(bytes);
  return "const DocsText k_" + name + "{\n    {" + literal(bytes) + ",\n     " +
         std::to_string(bytes.size()) + "},\n    {" + literal(packed) + ",\n     " +
         std::to_string(packed.size()) + "}};\n";
}

void docs(const std::vector<std::string>& arguments) {
  if (arguments.size() != 4) throw std::runtime_error("docs OUT.cpp openapi.yaml docs.css docs.js");
  const std::string yaml = read_file(arguments[1]);
  const YAML::Node document = YAML::Load(yaml);
  std::string out =
      "// Made by embed_docs.\n#include \"docs/docs_data.hpp\"\n\nnamespace mcpgw::detail {\nnamespace {\n";
  out += member("yaml", yaml) + member("json", to_json(document) + "\n") +
         member("page", Page(document).render()) + member("css", read_file(arguments[2])) +
         member("js", read_file(arguments[3]));
  out += "const DocsData k_data{k_yaml, k_json, k_page, k_css, k_js};\n}  // namespace\n";
  out += "const DocsData* docs_data() noexcept { return &k_data; }\n}  // namespace mcpgw::detail\n";
  write_file(arguments[0], out);
}

/// For apps/mcpgw/console_ui.hpp, which says what comes of it.
void files(const std::vector<std::string>& arguments) {
  if (arguments.size() != 3) throw std::runtime_error("files OUT.cpp HEADER DIRECTORY");
  const std::filesystem::path directory = arguments[2];
  std::map<std::string, std::string> found;  // sorted: the same directory gives the same text
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    if (entry.is_regular_file())
      found[entry.path().lexically_relative(directory).generic_string()] = read_file(entry.path().string());
  if (found.empty()) throw std::runtime_error("no file in " + directory.string());
  std::string out = "// Made by embed_docs.\n#include \"" + arguments[1] +
                    "\"\n\nnamespace mcpgw::app {\nnamespace {\nconst EmbeddedFile k_files[] = {\n";
  for (const auto& [name, bytes] : found) {
    const std::string packed = gzip(bytes);
    out += "    {" + literal(name) + ",\n    {" + literal(bytes) + ",\n     " + std::to_string(bytes.size()) +
           "},\n    {" + literal(packed) + ",\n     " + std::to_string(packed.size()) + "}},\n";
  }
  out += "};\n}  // namespace\nstd::span<const EmbeddedFile> console_files() noexcept { return k_files; }\n" +
         std::string("}  // namespace mcpgw::app\n");
  write_file(arguments[0], out);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (!arguments.empty() && arguments[0] == "docs") {
      docs({arguments.begin() + 1, arguments.end()});
    } else if (!arguments.empty() && arguments[0] == "files") {
      files({arguments.begin() + 1, arguments.end()});
    } else if (arguments.size() == 3 && arguments[0] == "gzip") {
      write_file(arguments[2], gzip(read_file(arguments[1])));
    } else {
      throw std::runtime_error("docs ..., files ... or gzip ... is wanted");
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "embed_docs: " << error.what() << '\n';
    return 1;
  }
}
