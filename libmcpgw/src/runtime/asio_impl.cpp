// The compiled part of Asio, once (BOOST_ASIO_SEPARATE_COMPILATION): saves seconds in every other file.
#include <boost/asio/impl/src.hpp>
#include <boost/asio/ssl/impl/src.hpp>
