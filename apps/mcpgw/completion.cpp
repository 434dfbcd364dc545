// mcpgw completion: what a shell needs to complete the command line, made from the commands themselves.
#include "cli.hpp"

namespace mcpgw::app {

namespace {

struct Candidate {
  std::string word, help;
};

/// An option that takes a value.
struct Valued {
  std::string name;  ///< "--effect"
  std::string help;
  std::vector<std::string> words;
  bool file = false;
};

struct Command {
  std::string path;  ///< "mcpgw/policy/add"
  std::vector<Candidate> subcommands;
  std::vector<Candidate> flags;
  std::vector<Valued> valued;
  std::vector<std::string> words;  ///< of positional arguments
  bool file = false;               ///< a positional argument names a file
};

std::vector<std::string> names_of(const CLI::Option& option) {
  std::vector<std::string> out;
  for (const auto& name : option.get_snames()) out.push_back("-" + name);
  for (const auto& name : option.get_lnames()) out.push_back("--" + name);
  return out;
}

/// `outer`: options of the commands around it, which may stand here too.
void collect(CLI::App& app, const std::string& path, Command outer, std::vector<Command>& out) {
  Command command = std::move(outer);
  command.path = path;
  command.subcommands.clear();
  const bool is_root = out.empty();
  for (const auto* option : app.get_options()) {
    if (option->get_positional()) {
      const auto& words = choices_of(*option);
      command.words.insert(command.words.end(), words.begin(), words.end());
      command.file = command.file || is_file(*option);
      continue;
    }
    for (const auto& name : names_of(*option)) {
      const bool help = name == "--help" || name == "-h";
      if (help && !is_root) continue;  // every command has it: the outermost one's will do
      if (option->get_items_expected_max() == 0)
        command.flags.push_back({name, option->get_description()});
      else
        command.valued.push_back({name, option->get_description(), choices_of(*option), is_file(*option)});
    }
  }
  const auto children = app.get_subcommands([](CLI::App*) { return true; });
  for (const auto* child : children)
    command.subcommands.push_back({child->get_name(), child->get_description()});
  out.push_back(command);
  command.words.clear();
  command.file = false;
  for (auto* child : children) collect(*child, path + "/" + child->get_name(), command, out);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string quoted(const std::string& text) { return "'" + replaced(text, "'", "'\\''") + "'"; }

/// Each word by itself, as the elements of an array are written.
std::string quoted_each(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (const auto& word : words) out.push_back(quoted(word));
  return join(out, " ");
}

/// `"path option" | "path option"`: how bash and zsh name options that take a value.
template <class Wanted>
std::string patterns(const Command& command, Wanted wanted) {
  std::string out;
  for (const auto& option : command.valued)
    if (wanted(option)) out += (out.empty() ? "" : " | ") + quoted(command.path + " " + option.name);
  return out;
}

/// The case arms that both share: the word before is an option that takes a value.
std::string value_arms(const std::vector<Command>& commands, const std::string& words,
                       const std::string& file, const std::string& other) {
  std::string out;
  const auto arm = [&out](const std::string& pattern, const std::string& action) {
    if (!pattern.empty()) out += "    " + pattern + ") " + action + " ;;\n";
  };
  for (const auto& command : commands) {
    for (const auto& option : command.valued)
      if (!option.words.empty())
        arm(quoted(command.path + " " + option.name), replaced(words, "@", quoted_each(option.words)));
    arm(patterns(command, [](const Valued& o) { return o.file; }), file);
    arm(patterns(command, [](const Valued& o) { return !o.file && o.words.empty(); }), other);
  }
  return out;
}

/// The walk over the words before the one that is completed: which command they name.
std::string walk_arms(const std::vector<Command>& commands, const std::string& skip) {
  std::string out;
  for (const auto& command : commands)
    if (const auto all = patterns(command, [](const Valued&) { return true; }); !all.empty())
      out += "      " + all + ") " + skip + " ;;\n";
  std::string paths;
  for (const auto& command : commands)
    if (command.path != "mcpgw") {
      const auto slash = command.path.rfind('/');
      paths += (paths.empty() ? "" : " | ") +
               quoted(command.path.substr(0, slash) + " " + command.path.substr(slash + 1));
    }
  return out + "      " + paths + ") at=$at/$word ;;\n";
}

std::string bash(const std::vector<Command>& commands) {
  std::string out =
      "# bash completion for mcpgw: source it, or put it where bash-completion looks.\n"
      "_mcpgw() {\n"
      "  local at=mcpgw cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i word words= found\n"
      "  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=${COMP_WORDS[i]}\n"
      "    case \"$at $word\" in\n" +
      walk_arms(commands, "((i++))") +
      "    esac\n"
      "  done\n"
      "  case \"$at $prev\" in\n" +
      value_arms(commands, "found=(@); COMPREPLY=($(compgen -W \"${found[*]}\" -- \"$cur\")); return",
                 "compopt -o default 2>/dev/null; return", "return") +
      "  esac\n"
      "  case $at in\n";
  for (const auto& command : commands) {
    std::vector<std::string> words = command.words;
    for (const auto& one : command.subcommands) words.push_back(one.word);
    for (const auto& one : command.flags) words.push_back(one.word);
    for (const auto& one : command.valued) words.push_back(one.name);
    out += "    " + command.path + ") words=" + quoted(join(words, " "));
    if (command.file) out += "; [[ $cur == -* ]] || compopt -o default 2>/dev/null";
    out += " ;;\n";
  }
  return out +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "}\n"
         "complete -F _mcpgw mcpgw\n";
}

std::string zsh(const std::vector<Command>& commands) {
  std::string out =
      "#compdef mcpgw\n"
      "# zsh completion for mcpgw: source it after compinit, or put it into $fpath as _mcpgw.\n"
      "_mcpgw() {\n"
      "  local at=mcpgw word i\n"
      "  local -a found\n"
      "  for ((i = 2; i < CURRENT; i++)); do\n"
      "    word=${words[i]}\n"
      "    case \"$at $word\" in\n" +
      walk_arms(commands, "((i++))") +
      "    esac\n"
      "  done\n"
      "  case \"$at ${words[CURRENT-1]}\" in\n" +
      value_arms(commands, "found=(@); _describe value found; return", "_files; return", "return") +
      "  esac\n"
      "  case $at in\n";
  for (const auto& command : commands) {
    std::vector<std::string> words;
    const auto add = [&words](const std::string& word, const std::string& help) {
      words.push_back(quoted(word + (help.empty() ? "" : ":" + help)));
    };
    for (const auto& word : command.words) add(word, "");
    for (const auto& one : command.subcommands) add(one.word, one.help);
    for (const auto& one : command.flags) add(one.word, one.help);
    for (const auto& one : command.valued) add(one.name, one.help);
    out += "    " + command.path + ") found=(" + join(words, " ") + ")" + (command.file ? "; _files" : "") +
           " ;;\n";
  }
  return out +
         "  esac\n"
         "  _describe mcpgw found\n"
         "}\n"
         "if [ \"$funcstack[1]\" = _mcpgw ]; then _mcpgw \"$@\"; else compdef _mcpgw mcpgw; fi\n";
}

std::string fish_quoted(const std::string& text) {
  return "'" + replaced(replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
}

std::string fish(const std::vector<Command>& commands) {
  std::string out =
      "# fish completion for mcpgw: source it, or put it into ~/.config/fish/completions/mcpgw.fish.\n"
      "function __mcpgw_at\n"
      "  set -l at mcpgw\n"
      "  set -l skip 0\n"
      "  for word in (commandline -opc)[2..-1]\n"
      "    if test $skip -eq 1\n"
      "      set skip 0\n"
      "      continue\n"
      "    end\n"
      "    switch \"$at $word\"\n";
  std::string valued, paths;
  for (const auto& command : commands) {
    for (const auto& option : command.valued) valued += " " + fish_quoted(command.path + " " + option.name);
    const auto slash = command.path.rfind('/');
    if (slash != std::string::npos)
      paths += " " + fish_quoted(command.path.substr(0, slash) + " " + command.path.substr(slash + 1));
  }
  out += "      case" + valued +
         "\n        set skip 1\n"
         "      case" +
         paths +
         "\n        set at $at/$word\n"
         "    end\n"
         "  end\n"
         "  test $at = $argv[1]\n"
         "end\n"
         "complete -c mcpgw -f\n";
  for (const auto& command : commands) {
    const std::string start = "complete -c mcpgw -n " + fish_quoted("__mcpgw_at " + command.path);
    const auto option = [&](const std::string& name, const std::string& help, const std::string& rest) {
      const bool is_long = name.compare(0, 2, "--") == 0;
      out += start + (is_long ? " -l " + name.substr(2) : " -s " + name.substr(1)) + rest + " -d " +
             fish_quoted(help) + "\n";
    };
    for (const auto& one : command.subcommands)
      out += start + " -a " + one.word + " -d " + fish_quoted(one.help) + "\n";
    if (!command.words.empty()) out += start + " -a " + fish_quoted(join(command.words, " ")) + "\n";
    if (command.file) out += start + " -F\n";
    for (const auto& one : command.flags) option(one.word, one.help, "");
    for (const auto& one : command.valued)
      option(one.name, one.help,
             one.file            ? " -r -F"
             : one.words.empty() ? " -x"
                                 : " -x -a " + fish_quoted(join(one.words, " ")));
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& app, Invocation& invocation) {
  auto shell = std::make_shared<std::string>();
  auto* command = app.add_subcommand("completion", "Prints what a shell needs to complete this command line");
  add_choice(*command, "shell", *shell, {"bash", "zsh", "fish"}, "bash, zsh or fish")->required();
  command->callback([&app, &invocation, shell] {
    invocation.action = [&app, shell] {
      std::vector<Command> commands;
      collect(app, "mcpgw", {}, commands);
      const auto text = *shell == "bash" ? bash(commands) : *shell == "zsh" ? zsh(commands) : fish(commands);
      std::fputs(text.c_str(), stdout);
      return kDone;
    };
  });
}

}  // namespace mcpgw::app
